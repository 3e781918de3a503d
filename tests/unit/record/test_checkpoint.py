import dataclasses
import math
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from elsa.errors import CheckpointError, RunError
from elsa.record.checkpoint import load_checkpoint, save_checkpoint
from elsa.record.directory import RunDirectory
from elsa.record.events import RunStarted
from elsa.record.manifest import Manifest
from elsa.record.shelf import Shelf

MANIFEST = Manifest("run", 1.0, 0, {}, "", {}, {}, {}, {})


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path / "run", MANIFEST) as directory:
        yield directory


def tensors(number: int) -> dict[str, Tensor]:
    return {"global/a.lora_A": torch.full((2, 3), float(number))}


def bits(tensor: Tensor) -> list[int]:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()


def test_a_checkpoint_is_read_back_bit_for_bit(run: RunDirectory) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(4, 6, generator=generator)
    buffer = torch.arange(12.0)
    saved = {
        "global/base_model.model.a.lora_A.weight": drawn,
        "again": drawn,
        "transposed": drawn.T,
        "moments/device-0/first": buffer[:5],
        "moments/device-0/second": buffer[5:],
        "bfloat16": drawn.bfloat16(),
        "nan": torch.tensor([math.nan, math.inf, -0.0]),
        "generator": generator.get_state(),
        "step": torch.tensor(7),
        "none": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(drawn[0]),
    }
    state = {"losses": [0.1, math.inf], "names": {"é": None}, "done": True}
    run.events.append(RunStarted(0, 1, 1, 1))
    save_checkpoint(run, 12, saved, state)
    loaded = load_checkpoint(run.path)
    assert (loaded.round, loaded.state, loaded.skipped) == (12, state, ())
    assert loaded.offsets == run.offsets()
    assert loaded.offsets["events"] > 0
    assert loaded.tensors.keys() == saved.keys()
    for name, tensor in saved.items():
        found = loaded.tensors[name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert (
            found.numpy(force=True).tobytes() == tensor.numpy(force=True).tobytes()
            if (tensor.dtype != torch.bfloat16)
            else torch.equal(found, tensor)
        )


def test_loaded_tensors_may_be_changed_without_touching_the_file(run: RunDirectory) -> None:
    save_checkpoint(run, 0, tensors(1), {})
    load_checkpoint(run.path).tensors["global/a.lora_A"].add_(5)
    assert load_checkpoint(run.path).tensors["global/a.lora_A"][0, 0] == 1


def test_the_same_state_makes_the_same_file(run: RunDirectory) -> None:
    state = {"b": 1, "a": [2, 3]}
    first = save_checkpoint(run, 1, tensors(1) | {"x": torch.ones(2)}, state)
    assert save_checkpoint(run, 1, tensors(1) | {"x": torch.ones(2)}, state) == first


def test_the_newest_counts_and_two_are_kept(run: RunDirectory) -> None:
    for number in (8, 9, 10, 11):
        save_checkpoint(run, number, tensors(number), {"number": number})
        assert load_checkpoint(run.path).state == {"number": number}
    rounds = sorted(path.name[:12] for path in run.checkpoints.iterdir())
    assert rounds == ["round-000010", "round-000011"]


def test_a_round_saved_again_replaces_its_file(run: RunDirectory) -> None:
    save_checkpoint(run, 1, tensors(1), {})
    save_checkpoint(run, 2, tensors(2), {"try": 1})
    save_checkpoint(run, 2, tensors(2), {"try": 2})
    assert load_checkpoint(run.path).state == {"try": 2}
    rounds = sorted(path.name[:12] for path in run.checkpoints.iterdir())
    assert rounds == ["round-000001", "round-000002"]


def test_a_file_cut_at_any_length_is_never_read_back(run: RunDirectory) -> None:
    save_checkpoint(run, 1, tensors(1), {"number": 1})
    path = save_checkpoint(run, 2, tensors(2), {"number": 2})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        loaded = load_checkpoint(run.path)
        assert (loaded.round, loaded.state) == (1, {"number": 1})
        assert torch.equal(loaded.tensors["global/a.lora_A"], tensors(1)["global/a.lora_A"])
        assert "is damaged" in loaded.skipped[0]
    path.write_bytes(whole)
    assert load_checkpoint(run.path).round == 2


def test_a_file_with_any_byte_changed_is_never_read_back(run: RunDirectory) -> None:
    save_checkpoint(run, 1, tensors(1), {})
    path = save_checkpoint(run, 2, tensors(2), {})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert load_checkpoint(run.path).round == 1


def test_a_damaged_file_goes_when_its_round_is_saved_again(run: RunDirectory) -> None:
    save_checkpoint(run, 1, tensors(1), {})
    path = save_checkpoint(run, 2, tensors(2), {})
    path.write_bytes(b"spoilt")
    path.rename(path.with_name("round-000002-0123456789abcdef.safetensors"))
    save_checkpoint(run, 2, tensors(2), {})
    loaded = load_checkpoint(run.path)
    assert (loaded.round, loaded.skipped) == (2, ())
    assert len(list(run.checkpoints.iterdir())) == 2


def test_without_a_whole_checkpoint_the_error_says_what_is_wrong(run: RunDirectory) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        load_checkpoint(run.path)
    save_checkpoint(run, 1, tensors(1), {}).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint can be used:\s+round-000001.*damag"):
        load_checkpoint(run.path)
    with pytest.raises(RunError, match="is no run directory"):
        load_checkpoint(run.checkpoints)


def test_a_checkpoint_of_another_run_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    other = dataclasses.replace(MANIFEST, seed=1)
    with RunDirectory.create(tmp_path / "other", other) as another:
        path = save_checkpoint(another, 5, tensors(5), {})
    path.rename(run.checkpoints / path.name)
    with pytest.raises(CheckpointError, match="belongs to another run"):
        load_checkpoint(run.path)


def test_a_full_disk_is_an_error_and_leaves_the_older_checkpoint(run: RunDirectory) -> None:
    save_checkpoint(run, 1, tensors(1), {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot save a checkpoint"):
            save_checkpoint(run, 2, {"large": torch.zeros(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_checkpoint(run.path).round == 1
    assert len(list(run.checkpoints.iterdir())) == 1


def test_a_shelf_comes_back_with_its_checkpoint(run: RunDirectory, tmp_path: Path) -> None:
    shelf = Shelf(run.path)
    for number in (1, 2, 3):
        shelf["device/a"] = {"x": torch.full((3,), float(number))}
        save_checkpoint(run, number, tensors(number), {}, shelf)
    shelf["device/a"] = {"x": torch.zeros(3)}
    assert len(list(run.checkpoints.glob("*.shelf"))) == 2  # those of the checkpoints kept
    load_checkpoint(run.path).fill(shelf)
    assert shelf["device/a"]["x"].tolist() == [3, 3, 3]


@pytest.mark.parametrize("damage", ["changed", "shortened", "removed"])
def test_a_checkpoint_with_a_damaged_shelf_is_not_used(run: RunDirectory, damage: str) -> None:
    shelf = Shelf(run.path)
    for number in (1, 2):
        shelf["device/a"] = {"x": torch.full((3,), float(number))}
        path = save_checkpoint(run, number, tensors(number), {}, shelf)
    beside = path.with_suffix(".shelf")
    data = beside.read_bytes()
    if damage == "removed":
        beside.unlink()
    else:
        beside.write_bytes(data[:-1] + b"\1" if damage == "changed" else data[:-1])
    loaded = load_checkpoint(run.path)
    loaded.fill(shelf)
    assert (loaded.round, shelf["device/a"]["x"].tolist()) == (1, [1, 1, 1])
    assert beside.name in loaded.skipped[0]


def test_a_shelf_whose_checkpoint_never_came_is_removed(run: RunDirectory) -> None:
    left = run.checkpoints / "round-000001-0123456789abcdef.shelf"
    left.write_bytes(b"killed here")
    save_checkpoint(run, 2, tensors(2), {}, Shelf(run.path))
    assert not left.exists()


def test_a_checkpoint_without_a_shelf_fills_none(run: RunDirectory) -> None:
    save_checkpoint(run, 1, tensors(1), {})
    with pytest.raises(CheckpointError, match="holds no moments"):
        load_checkpoint(run.path).fill(Shelf(run.path))

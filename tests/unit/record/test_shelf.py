"""A shelf is a dictionary of tensors whose values lie in a file."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.errors import CheckpointError, RunError
from elsa.record.shelf import Shelf

SHAPES: list[tuple[tuple[int, ...], torch.dtype]] = [
    ((2, 3), torch.float32),
    ((), torch.float32),
    ((5,), torch.bfloat16),
    ((0, 4), torch.float32),
    ((3,), torch.int64),
    ((7,), torch.uint8),
]


def drawn(seed: int, shapes: list[int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{number}/{place}": (100 * torch.randn(shape, generator=generator)).to(dtype)
        for place, number in enumerate(shapes)
        for shape, dtype in [SHAPES[number]]
    }


def same(one: Any, two: Any) -> bool:
    def bits(held: Any) -> dict[str, Any]:
        return {
            owner: {name: (it.dtype, it.shape, it.tolist()) for name, it in tensors.items()}
            for owner, tensors in held.items()
        }

    return bits(one) == bits(two)


steps = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "a/b", "c"]),
        st.none() | st.lists(st.integers(0, len(SHAPES) - 1), max_size=4),
    ),
    max_size=20,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_it_holds_what_a_dictionary_holds_and_so_does_its_copy(tmp_path: Path, steps: Any) -> None:
    # Owners whose tensors grow must not be written over those behind them, nor read short.
    shelf, plain = Shelf(tmp_path), dict[str, dict[str, Tensor]]()
    for number, (owner, shapes) in enumerate(steps):
        if shapes is None:
            assert (shelf.pop(owner, None) is None) == (plain.pop(owner, None) is None)
        else:
            shelf[owner] = plain[owner] = drawn(number, shapes)
    assert list(shelf) == list(plain)
    assert same(shelf, plain)
    assert shelf.fresh == set(plain)
    other = Shelf(tmp_path)
    for owner in shelf:
        other.lay(owner, *shelf.lift(owner))
    assert same(other, plain)
    digest, again = shelf.copy_to(tmp_path / "copy"), Shelf(tmp_path)
    again["a"] = drawn(-1, [0, 0, 0])
    index = json.loads(json.dumps(shelf.index()))
    again.restore(tmp_path / "copy", index)
    assert same(again, plain)
    again["b"] = plain["b"] = drawn(99, [0, 1, 2, 3, 4, 5])
    assert same(again, plain)
    assert len(digest) == 64


def test_what_is_given_out_is_a_copy(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf["a"] = {"x": torch.ones(3)}
    shelf["a"]["x"].add_(1)
    assert shelf["a"]["x"].tolist() == [1, 1, 1]


def test_owners_below_a_prefix_are_told_apart(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    one, two = shelf.below("one/"), shelf.below("two/")
    one["x"], two["x"] = {"v": torch.zeros(1)}, {"v": torch.ones(1)}
    assert (dict(one)["x"]["v"].item(), dict(two)["x"]["v"].item()) == (0, 1)
    assert list(shelf) == ["one/x", "two/x"]
    del one["x"]
    assert (len(one), len(two), one.get("x")) == (0, 1, None)


def test_nothing_of_it_is_left_in_the_folder(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf["a"] = {"x": torch.ones(3)}
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, taken = Shelf(tmp_path), []

    def write(_: int, data: memoryview, __: int) -> int:
        taken.append(len(data))
        if len(taken) > 1:  # a part, then nothing more
            raise OSError(28, "No space left on device")
        return 5

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(RunError, match="No space left"):
        shelf["a"] = {"x": torch.ones(3)}
    assert taken == [16, 11]
    with pytest.raises(RunError, match="cannot be written"):
        Shelf(tmp_path / "missing")


def test_a_copy_that_is_too_short_is_refused(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf["a"] = {"x": torch.ones(3)}
    shelf.copy_to(tmp_path / "copy")
    (tmp_path / "copy").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="shorter"):
        Shelf(tmp_path).restore(tmp_path / "copy", shelf.index())
    with pytest.raises(CheckpointError, match="cannot be read"):
        Shelf(tmp_path).restore(tmp_path / "none", shelf.index())

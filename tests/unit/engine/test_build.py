from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elsa.engine.build import TESTER, build_federation, digests_of, open_sources
from elsa.engine.run import run
from elsa.errors import ConfigError, DataError, ElsaError, ModelError, SplitError
from elsa.wire.layers import Tap
from elsa.wire.meter import Meter

Build = Callable[..., Any]


def tokens(examples: Any) -> list[tuple[int, ...]]:
    return [tuple(ids.tolist()) for ids in examples.input_ids]


@pytest.fixture
def build(make: Any, sources: Any) -> Build:
    """Overrides -> the federation of the tiny config with them."""
    return lambda *overrides: build_federation(make(*overrides), sources)


def test_parties_are_named_and_assigned_in_turn(build: Build) -> None:
    federation = build("federation.devices=11", "federation.edges=3", "partition.min_rows=1")
    names = [f"device-{number:02d}" for number in range(11)]
    assert list(federation.devices) == names
    assert list(federation.edges) == ["edge-0", "edge-1", "edge-2"]
    assert federation.cloud.assignment == {
        f"edge-{edge}": tuple(names[edge::3]) for edge in range(3)
    }
    assert [it.name for it in federation.testers["edge-0"]] == [TESTER]
    assert federation.speeds.keys() == set(names)


def test_every_training_row_lies_on_one_device(build: Build, sources: Any) -> None:
    devices = build("data.holdout_fraction=0.25").devices.values()
    shared = [
        ids for it in devices for part in (it._training, it._held_out) for ids in tokens(part)
    ]
    encoded = sources.tokenizer.encode(sources.text.train.text, max_tokens=32)
    assert sorted(shared) == sorted(tuple(each.input_ids.tolist()) for each in encoded)
    for device in devices:
        total = len(device._training) + len(device._held_out)
        assert len(device._held_out) == round(0.25 * total)


def test_tester_holds_all_test_rows_and_trains_on_none(build: Build, sources: Any) -> None:
    (tester,) = build().testers["edge-0"]
    assert len(tester._training) == 0
    assert len(tester._held_out) == len(sources.text.test) == 18
    assert tester._held_out.labels.tolist() == sources.text.test.label.tolist()


def test_each_device_keeps_a_row_to_train_on(build: Build) -> None:
    federation = build(
        "federation.devices=36",
        "partition.kind=iid",
        "partition.min_rows=1",
        "data.holdout_fraction=0.9",
    )
    sizes = {(len(it._training), len(it._held_out)) for it in federation.devices.values()}
    assert sizes == {(1, 1)}


def test_seed_moves_rows_order_and_adapters_and_nothing_else_does(build: Build) -> None:
    def drawn(federation: Any) -> tuple[Any, ...]:
        device = federation.devices["device-0"]
        first = next(device._stream)
        return (
            tokens(device._training),
            first.input_ids.tolist(),
            {name: value.tolist() for name, value in federation.cloud.adapters.items()},
            federation.speeds,
        )

    one, again, faster = (drawn(build(*it)) for it in [(), (), ("train.learning_rate=0.5",)])
    other = drawn(build("run.seed=1"))
    assert one == again == faster
    assert all(left != right for left, right in zip(one, other, strict=True))


def test_devices_draw_their_own_order(build: Build) -> None:
    settings = [it._settings for it in build().devices.values()]
    assert len({it.seed for it in settings}) == 3


@pytest.mark.parametrize("bottom, top, trunk", [(1, 1, 2), (2, 0, 2), (1, 2, 1)])
def test_split_is_that_of_the_config(build: Build, bottom: int, top: int, trunk: int) -> None:
    federation = build(f"split.bottom={bottom}", f"split.top={top}")
    splits = {device.segments.split for device in federation.devices.values()}
    assert {(it.bottom, it.trunk, it.top) for it in splits} == {(bottom, trunk, top)}
    assert federation.shape.blocks == 4
    assert federation.shape.hidden == 32


def test_layers_lie_behind_the_meter(make: Any, sources: Any) -> None:
    tap = Tap()
    federation = build_federation(make(), sources, [tap])
    assert isinstance(federation.layers[0], Meter)
    assert federation.layers == (federation.meter, tap)


def test_tensors_and_positions_restore_a_federation(build: Build) -> None:
    one, two = build(), build("run.seed=5")
    one.devices["device-1"].restore({"step/x": torch.tensor(2.0)}, {}, 7)
    one.edges["edge-1"].restore({"device-1/step/y": torch.tensor(3.0)}, {})
    two.restore(4, one.tensors(), one.positions())
    assert two.cloud.round == 4
    assert two.positions() == one.positions() == {"device-0": 0, "device-1": 7, "device-2": 0}
    left, right = one.tensors(), two.tensors()
    assert left.keys() == right.keys()
    assert {"device/device-1/step/x", "edge/edge-1/device-1/step/y"} < left.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_digests_name_model_files_and_row_parts(sources: Any) -> None:
    model, rows = digests_of(sources)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= model.keys()
    assert rows.keys() == {"train", "test"}
    assert all(len(digest) == 64 for digest in (*model.values(), *rows.values()))


@pytest.mark.parametrize(
    ("override", "kind", "message"),
    [
        ("split.bottom=4", SplitError, "4"),
        ("federation.devices=80", DataError, "partition.min_rows"),
        ("partition.min_rows=40", DataError, "federation.devices"),
    ],
)
def test_what_does_not_go_together_is_refused_and_leaves_no_folder(
    override: str, kind: type[ElsaError], message: str, make: Any, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        run(make(override), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "kind", "message"),
    [
        ("model.max_tokens=49", ConfigError, "model.max_tokens = 49.*at most 48"),
        ("model.path=trec", ConfigError, "data.path"),
        ("model.path=./nowhere", ModelError, "no such directory"),
        ("data.path=minilm", DataError, "model.path"),
        ("data.path=./nowhere.csv", DataError, "neither an asset nor a file"),
        ("data.label=class", DataError, "has no column 'class'"),
        ("data.label=", ConfigError, "data.label"),
    ],
)
def test_sources_that_cannot_be_used_are_refused(
    override: str, kind: type[ElsaError], message: str, make: Any
) -> None:
    with pytest.raises(kind, match=message):
        open_sources(make(override))


def test_rows_are_drawn_by_the_seed(make: Any, sources: Any) -> None:
    again, other = (open_sources(make(it)).text for it in ("run.seed=0", "run.seed=1"))
    assert again.train.text == sources.text.train.text
    assert other.train.text != sources.text.train.text
    assert len(other.train) == len(sources.text.train) == 72
    assert np.unique(other.train.label).size > 1

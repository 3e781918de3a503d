"""One config and seed give one result; what a run counts adds up, however it is looked at."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from elsa.engine.build import build_federation
from elsa.engine.run import run
from elsa.record.directory import read_summary
from elsa.record.metrics import read_metrics
from elsa.wire.layers import Tap
from elsa.wire.messages import EvaluationOrder, RoundOrder

Traces = Callable[[Path], dict[str, Any]]
HOP_OF = {
    ("device_edge", "up"): "device_to_edge",
    ("device_edge", "down"): "edge_to_device",
    ("edge_cloud", "up"): "edge_to_cloud",
    ("edge_cloud", "down"): "cloud_to_edge",
}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("federation.trunk=shared", "federation.participation=0.67", "train.bucketing=false"),
        ("model.precision=bfloat16", "train.optimizer_state=reset"),
    ],
    ids=["plain", "shared", "bfloat16"],
)
def test_two_runs_are_equal_bit_for_bit(
    overrides: tuple[str, ...], make: Any, traces: Traces, tmp_path: Path
) -> None:
    config = make(*overrides)
    first, second = (run(config, out=tmp_path / name).directory for name in ("one", "two"))
    assert traces(first) == traces(second)


def test_hash_seed_and_process_do_not_matter(command: Any, finished: Any, traces: Traces) -> None:
    expected = traces(finished.directory)
    for what, found in traces(command.directory).items():
        assert found == expected[what], what


def test_another_seed_gives_another_run(
    make: Any, finished: Any, traces: Traces, tmp_path: Path
) -> None:
    other = traces(run(make("run.seed=1"), out=tmp_path / "other").directory)
    expected = traces(finished.directory)
    weights = "adapter_model.safetensors"
    assert other["adapter"][weights] != expected["adapter"][weights]
    assert other["metrics"] != expected["metrics"]


def test_global_generator_is_untouched(make: Any, tmp_path: Path) -> None:
    # A run inside a program draws nothing from the program's own generator.
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run(make("federation.rounds=1"), out=tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)


def test_summary_holds_what_it_promises(finished: Any) -> None:
    summary = read_summary(finished.directory)
    assert summary == finished.summary
    assert summary is not None
    assert summary.keys() >= {
        "accuracy",
        "accuracy_mean_device",
        "accuracy_worst_device",
        "loss",
        "rounds",
        "samples",
        "samples_per_second",
        "wall_seconds",
        "simulated_seconds",
        "bytes",
        "peak_rss_bytes",
    }
    assert summary["bytes"].keys() >= {*HOP_OF.values(), "uncompressed_padded_float32"}
    assert 0 <= summary["accuracy_worst_device"] <= summary["accuracy_mean_device"] <= 1
    assert 0 <= summary["accuracy"] <= 1
    assert summary["loss"] > 0
    assert summary["samples_per_second"] * summary["wall_seconds"] > 0
    assert summary["samples_per_second"] > summary["samples"] / summary["wall_seconds"]
    assert summary["peak_rss_bytes"] > 10**8


def test_summary_agrees_with_the_metrics_of_the_rounds(finished: Any) -> None:
    rows, summary = read_metrics(finished.directory / "metrics.csv"), finished.summary
    assert [row.round for row in rows] == list(range(summary["rounds"]))
    assert sum(row.samples for row in rows) == summary["samples"]
    assert sum(row.simulated_seconds for row in rows) == pytest.approx(summary["simulated_seconds"])
    for hop in (*HOP_OF.values(), "uncompressed_padded_float32"):
        assert sum(getattr(row, f"bytes_{hop}") for row in rows) == summary["bytes"][hop], hop
    last = rows[-1]
    assert last.loss == summary["training_loss"]
    assert last.evaluation_loss == summary["loss"]
    for name in ("accuracy", "accuracy_mean_device", "accuracy_worst_device"):
        assert getattr(last, name) == summary[name], name


def test_bytes_are_those_of_the_frames_that_passed(make: Any, drive: Any) -> None:
    tap = Tap()
    _, directory = drive(make(), tap)
    trained, evaluated = Counter[str](), Counter[str]()
    passed = trained
    for frame in tap.frames:
        if isinstance(frame.message, RoundOrder | EvaluationOrder):
            passed = trained if isinstance(frame.message, RoundOrder) else evaluated
        passed[HOP_OF[frame.link.tier, frame.direction]] += len(frame.data)
    summary = read_summary(directory)
    assert summary is not None
    assert {hop: summary["bytes"][hop] for hop in HOP_OF.values()} == trained
    assert summary["bytes"]["evaluation"] == evaluated.total() > 0


def test_exported_config_lists_are_sorted(finished: Any) -> None:
    # PEFT keeps names in sets, whose order is that of the process.
    written = json.loads((finished.directory / "adapter" / "adapter_config.json").read_bytes())
    assert len(written["target_modules"]) > 1
    assert written["target_modules"] == sorted(written["target_modules"])


def test_all_devices_share_one_frozen_backbone(make: Any, sources: Any) -> None:
    def storages(devices: int) -> set[int]:
        config = make(f"federation.devices={devices}", "partition.min_rows=1")
        federation = build_federation(config, sources)
        parties = [*federation.devices.values(), *federation.testers["edge-0"]]
        assert len(parties) == devices + 1
        assert len({id(it.segments) for it in parties}) == 1
        held = [(it.segments.bottom.frozen(), it.segments.top.frozen()) for it in parties]
        return {
            tensor.untyped_storage().data_ptr()
            for parts in held
            for part in parts
            for tensor in part.values()
        }

    few, many = storages(2), storages(9)
    assert few == many
    assert few

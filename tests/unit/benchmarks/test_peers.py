"""The job that Flower and NVFlare get is the one that elsa does."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import job as jobs
import pytest
from comparison import parity_of, rows_of
from safetensors.torch import load_file

from elsa.config.printing import dump_toml
from elsa.engine.build import build_federation, initial_of
from elsa.roles.device import Device


def test_peers_get_the_rows_order_and_adapters_of_elsa(
    make: Any, sources: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make()
    (tmp_path / "mine.toml").write_text(dump_toml(config), encoding="utf-8")
    monkeypatch.setattr(jobs, "load_config", lambda *_: config)
    monkeypatch.setattr(jobs, "open_sources", lambda _: sources)
    job = jobs.Job(devices=config.federation.devices, rounds=2, steps=3, seed=config.run.seed)
    told = jobs.write(job, tmp_path / "job")
    for number, device in enumerate(build_federation(config, sources).devices.values()):
        assert isinstance(device, Device)
        held = json.loads((tmp_path / f"job/device-{number}.json").read_text(encoding="utf-8"))
        assert device.training.labels is not None
        assert held["labels"] == device.training.labels.tolist()
        assert len(held["labels"]) == told["rows"][number]
        assert len(held["batches"]) == 6
        for rows, batch in zip(held["batches"], islice(device.stream(), 6), strict=True):
            assert [len(held["input_ids"][row]) for row in rows] == list(batch.lengths)
            assert [held["labels"][row] for row in rows] == batch.labels.tolist()
            assert held["input_ids"][rows[0]] == batch.input_ids[0, : batch.lengths[0]].tolist()
    test = json.loads((tmp_path / "job/test.json").read_text(encoding="utf-8"))
    seen = sorted(row for rows in test["batches"] for row in rows)
    assert seen == list(range(len(sources.text.test))) == list(range(len(test["labels"])))
    start = load_file(tmp_path / "job/initial.safetensors")
    given = initial_of(sources, config.run.seed)
    assert start.keys() == given.keys()
    assert all(start[name].equal(value) for name, value in given.items())


def run(arm: str, turn: int, seconds: float, peak: int, accuracy: float) -> dict[str, Any]:
    return {
        "arm": arm,
        "turn": turn,
        "precision": "float32",
        "seconds": seconds,
        "cpu_seconds": seconds,
        "peak_bytes": peak,
        "processes": 1,
        "bytes_up": 0,
        "bytes_down": 0,
        "accuracy": [accuracy],
        "loss": [1 - accuracy],
    }


def test_ratios_are_taken_within_a_turn_and_losses_show() -> None:
    runs = [
        run("flower", 0, 10.0, 400, 0.5),
        run("fedavg", 0, 20.0, 800, 0.25),
        run("flower", 1, 90.0, 400, 0.5),
        run("fedavg", 1, 30.0, 100, 0.25),
        run("fedavg", 2, 1.0, 1, 0.25),
    ]
    flower, own = rows_of(runs)
    assert flower["times_faster_than_flower"] == flower["part_of_flowers_memory"] == 1
    assert own["times_faster_than_flower"] == pytest.approx((0.5 + 3) / 2)
    assert own["part_of_flowers_memory"] == pytest.approx((2 + 0.25) / 2)
    (parity,) = parity_of(runs)
    assert parity == {"arm": "flower", "precision": "float32", "accuracy": [0.25], "loss": [-0.25]}

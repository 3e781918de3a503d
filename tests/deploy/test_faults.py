"""Parties killed and frozen at a place of a round; `benchmarks/faults.py` has the whole matrix."""

import json
import resource
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from faults import DEVICES, EDGES, Cell, play, settings
from parties import Parties

SETTINGS = (
    "model.max_tokens=32",
    "data.text=question",
    "data.label=kind",
    "adapter.rank=2",
    "train.learning_rate=1e-2",
    "deploy.reconnect_seconds=8",
)


@pytest.fixture
def config(questions: Path, bert: Path, rows: list[tuple[str, str]]) -> Callable[..., Any]:
    """Settings of the tiny model."""
    labels = sorted({label for _, label in rows})
    own = (f"model.path={bert}", f"data.path={questions}", f"data.labels={labels}", *SETTINGS)
    return lambda *more: settings(*own, *more)


def test_killed_device_costs_its_part_of_the_round_and_comes_back(
    config: Callable[..., Any], tmp_path: Path
) -> None:
    found = play(Cell("device-0", "killed", "mid-step"), config(), tmp_path)
    assert found["rounds_finished"] == 3
    assert found["ended_well"]
    assert found["lost"] == ["device-0 in round 0"]
    assert found["noticed_seconds"] is not None
    log = (tmp_path / "device-0.log").read_text(encoding="utf-8")
    assert log.count("device-0 is at edge-0") == 2
    assert log.count("train ") > 1  # it took part again


def test_restarted_device_goes_on_with_its_optimizer(
    config: Callable[..., Any], tmp_path: Path
) -> None:
    found = play(Cell("device-0", "killed", "adapters up"), config(), tmp_path)
    assert found["ended_well"]
    # Killed when it had sent nothing: so there is nothing of round 0 to go on with.
    log = (tmp_path / "device-0.log").read_text(encoding="utf-8")
    assert "goes on with what it learned" not in log
    with Parties(config("federation.rounds=1"), tmp_path / "again") as parties:
        (tmp_path / "state").rename(parties.folder / "state")
        parties.start()
        parties.wait(lambda: parties.ended("cloud") == 0, 120, "the end")
        assert "goes on with what it learned up to round 2" in parties.log("device-0")


def test_killed_edge_is_back_and_nothing_finished_is_lost(
    config: Callable[..., Any], tmp_path: Path
) -> None:
    patient = config("deploy.reconnect_seconds=60")  # its devices wait for it, and do not move
    found = play(Cell("edge-0", "killed", "adapters up"), patient, tmp_path)
    assert found["rounds_finished"] == 3
    assert found["ended_well"]
    assert (tmp_path / "state" / "edge-0.safetensors").exists()


def test_devices_of_a_frozen_edge_move_and_the_run_ends(
    config: Callable[..., Any], tmp_path: Path
) -> None:
    found = play(Cell("edge-0", "frozen", "mid-step"), config("deploy.answer_seconds=8"), tmp_path)
    assert found["rounds_finished"] == 3
    assert sorted(found["lost"]) == ["device-0 in round 0", "device-2 in round 0"]
    for name in ("device-0", "device-2"):
        log = (tmp_path / f"{name}.log").read_text(encoding="utf-8")
        assert f"{name} is at edge-1" in log


def test_killed_cloud_goes_on_from_its_checkpoint(
    config: Callable[..., Any], tmp_path: Path
) -> None:
    found = play(Cell("cloud", "killed", "checkpoint"), config(), tmp_path)
    assert found["rounds_finished"] == 3
    assert found["ended_well"]
    assert not found["lost"]


def test_full_disk_ends_the_cloud_with_a_word_and_costs_one_round(
    config: Callable[..., Any], tmp_path: Path
) -> None:
    with Parties(config(), tmp_path) as parties:
        parties.start(*EDGES, *DEVICES)
        for name in DEVICES:
            parties.wait(lambda name=name: "is at edge" in parties.log(name), 120, f"{name} there")
        parties.start("cloud")
        events = tmp_path / "run" / "events.jsonl"
        there = '"kind": "round_started"'
        parties.wait(lambda: events.exists() and there in events.read_text(), 120, "a round")
        pid = int((tmp_path / "cloud.pid").read_text())
        sizes = [it.stat().st_size for it in (tmp_path / "run" / "checkpoint").glob("round-*")]
        room = max(sizes) * 9 // 10  # the next checkpoint, of the same tensors, has none
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        parties.wait(lambda: parties.ended("cloud") is not None, 120, "the end of the cloud")
        assert parties.ended("cloud") == 1
        assert "cannot be written" in parties.log("cloud") or "cannot save" in parties.log("cloud")
        kept = [path.name for path in (tmp_path / "run" / "checkpoint").glob("round-*")]
        assert kept  # the last good one
        sleep(0.5)
        parties.start("cloud")
        parties.wait(lambda: parties.ended("cloud") == 0, 120, "the end of the run")
    told = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    assert {it["round"] for it in told if it["kind"] == "round_finished"} == {0, 1, 2}

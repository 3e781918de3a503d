"""Edges that do not wait for all of their devices, against edges that do."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from elsa.engine.build import build_federation
from elsa.engine.run import resume, run
from elsa.engine.simulate import Simulation
from elsa.errors import Interrupted
from elsa.record.log import read_events

Traces = Callable[[Path], dict[str, Any]]

FEW = ("federation.devices=5", "partition.min_rows=4")
SLOW = (*FEW, "network.slow=0.4", "network.spread=0.1")
BUFFER = (*SLOW, "aggregate.late=buffer", "deploy.device_quorum=0.5", "federation.rounds=3")


def happened(run: Path, kind: str) -> list[Any]:
    return [it.event for it in read_events(run / "events.jsonl") if it.event.kind == kind]


@pytest.mark.parametrize("speeds", ["network.spread=0.0", "network.slow=0.4"])
def test_a_buffer_that_waits_for_all_is_the_synchronous_run_bit_for_bit(
    speeds: str, make: Any, traces: Traces, tmp_path: Path
) -> None:
    waits, buffers = (
        traces(run(make(*FEW, speeds, f"aggregate.late={late}"), out=tmp_path / late).directory)
        for late in ("drop", "buffer")
    )
    assert waits == buffers


def test_late_updates_count_later_and_rounds_are_shorter(
    make: Any, traces: Traces, tmp_path: Path
) -> None:
    one, again, waits = (
        run(make(*overrides), out=tmp_path / name)
        for name, overrides in (
            ("one", BUFFER),
            ("again", BUFFER),
            ("waits", (*SLOW, "federation.rounds=3")),
        )
    )
    assert traces(one.directory) == traces(again.directory)
    assert one.summary["simulated_seconds"] < 0.7 * waits.summary["simulated_seconds"]
    done = happened(one.directory, "device_finished")
    assert not happened(one.directory, "device_lost")
    # An edge of three averages as soon as two are there, one of two as soon as one is.
    taken = [(it.round, it.edge_round, it.edge) for it in done]
    assert {taken.count(it) for it in taken if it[2] == "edge-0"} == {2}
    assert {taken.count(it) for it in taken if it[2] == "edge-1"} == {1}
    assert {it.device for it in done} == {f"device-{number}" for number in range(5)}
    # What is counted is what came, in the round in which it came.
    for finished in happened(one.directory, "round_finished"):
        came = sum(it.samples for it in done if it.round == finished.round)
        assert came == finished.samples > 0


def test_who_is_dropped_is_as_if_it_had_not_been_asked(make: Any, sources: Any) -> None:
    once = (*SLOW, "federation.edge_rounds=1")
    config = make(*once, "deploy.device_quorum=0.5", "deploy.straggler_seconds=0")
    federation = build_federation(config, sources)
    simulation = Simulation(federation)
    reports = simulation.train_round()
    late = {it.device: it for it in reports if it.lost}
    assert len(late) == 2
    assert all("late: not done" in it.lost and it.samples == 0 for it in late.values())
    others = build_federation(make(*once), sources)
    others.cloud.assignment = {
        edge: tuple(name for name in names if name not in late)
        for edge, names in others.cloud.assignment.items()
    }
    without = Simulation(others)
    without.train_round()
    got: Mapping[str, torch.Tensor] = federation.cloud.adapters
    assert all(torch.equal(got[name], it) for name, it in others.cloud.adapters.items())
    everybody = Simulation(build_federation(make(*once), sources))
    everybody.train_round()
    assert simulation.seconds < everybody.seconds


def test_the_others_have_as_long_as_is_left_to_them(make: Any, sources: Any) -> None:
    """Seconds of a round by the time left: all of it is waited, and no more than needed."""
    seconds = {}
    for grace in (0.0, 0.05, 1e6):
        config = make(
            *SLOW,
            "federation.edges=1",
            "federation.edge_rounds=1",
            "deploy.device_quorum=0.5",
            f"deploy.straggler_seconds={grace}",
        )
        simulation = Simulation(build_federation(config, sources))
        lost = [it.device for it in simulation.train_round() if it.lost]
        seconds[grace] = simulation.seconds, len(lost)
    waits = Simulation(
        build_federation(make(*SLOW, "federation.edges=1", "federation.edge_rounds=1"), sources)
    )
    waits.train_round()
    assert seconds[1e6] == (waits.seconds, 0)
    assert seconds[0.05][0] == pytest.approx(seconds[0.0][0] + 0.05)
    assert seconds[0.0][1] >= seconds[0.05][1] == 2


def test_a_run_resumed_with_updates_on_their_way_ends_bit_identical(
    make: Any, traces: Traces, tmp_path: Path
) -> None:
    """Stopped after the first global round; `tests/faults` stops at odder moments."""
    whole = run(make(*BUFFER), out=tmp_path / "whole")
    out, heard = tmp_path / "stopped", []
    with pytest.raises(Interrupted):
        run(
            make(*BUFFER),
            out=out,
            listen=lambda event: heard.append(event.kind),
            stop=lambda: heard.count("checkpoint_saved") == 2,
        )
    (newest,) = (out / "checkpoint").glob("round-000001-*.safetensors")
    assert any(name.startswith("edge-flight/") for name in load_file(newest))
    resume(out)
    expected = traces(whole.directory)
    for what, found in traces(out).items():
        assert found == expected[what], what

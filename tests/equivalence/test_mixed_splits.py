"""Splits that differ between devices and change between rounds train what one split trains.

float32, identity codec, to the bit: adapters, and moments by name, whoever holds them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elsa.engine.build import build_federation
from elsa.engine.planner import hand_over
from elsa.engine.run import resume, run
from elsa.engine.simulate import Simulation
from elsa.errors import Interrupted
from elsa.record.events import Event
from elsa.record.log import read_events

CHANGES = (
    {"device-0": (2, 0), "device-1": (1, 2)},
    {"device-0": (1, 1), "device-1": (3, 0), "device-2": (1, 0)},
    {"device-0": (1, 2), "device-2": (2, 1)},
)
"""Before each round, the cuts of the devices that change."""
Moments = dict[tuple[str, str], Tensor]


def moments(federation: Any) -> Moments:
    """Of each device's adapters, wherever they lie."""
    found: Moments = {}
    for edge, names in federation.cloud.assignment.items():
        for name in names:
            for held in (
                federation.devices[name].moments(),
                federation.edges[edge].moments_of(name),
            ):
                found |= {(name, key): value for key, value in held.items()}
    return found


def trained(config: Any, sources: Any, changing: bool) -> Any:
    from elsa.core.split import Split

    federation = build_federation(config, sources)
    simulation = Simulation(federation)
    edges = {name: edge for edge, them in federation.cloud.assignment.items() for name in them}
    for changes in CHANGES:
        for name, cuts in changes.items() if changing else ():
            split = Split.of(4, *cuts)
            hand_over(federation.devices[name], federation.edges[edges[name]], sources.model, split)
        assert not any(report.lost for report in simulation.train_round())
    return federation


@pytest.mark.parametrize("state", ["keep", "reset"])
def test_changing_splits_train_the_adapters_of_one_split(
    make: Any, sources: Any, state: str
) -> None:
    config = make(f"train.optimizer_state={state}", "federation.edge_rounds=2")
    uniform, mixed = (trained(config, sources, changing) for changing in (False, True))
    assert {it.segments.split.bottom for it in mixed.devices.values()} == {1, 2, 3}
    for name, value in uniform.cloud.adapters.items():
        assert torch.equal(mixed.cloud.adapters[name], value), name
    one, other = moments(uniform), moments(mixed)
    assert one.keys() == other.keys()
    assert bool(one) == (state == "keep")
    assert all(torch.equal(other[key], value) for key, value in one.items())


def test_moments_left_behind_would_be_seen(
    make: Any, sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elsa.roles.edge import Edge

    uniform = trained(make(), sources, False)
    monkeypatch.setattr(Edge, "moments_of", lambda *_: {})
    mixed = trained(make(), sources, True)
    assert any(
        not torch.equal(mixed.cloud.adapters[name], value)
        for name, value in uniform.cloud.adapters.items()
    )


def test_a_shared_trunk_goes_on_when_splits_change(make: Any, sources: Any) -> None:
    """Its moments are its own: a device starts what it gains from zero."""
    config = make("federation.trunk=shared")
    federation = trained(config, sources, True)
    assert federation.edges["edge-0"].moments_of("device-0") == {}
    assert all(bool(it.isfinite().all()) for it in federation.cloud.adapters.values())


FITTED = (
    "split.mode=fitted",
    "split.every=1",
    "split.margin=0.0",
    "network.drift=1.0",
    "network.edge_gflops=0.005",
    "network.device_gflops=0.01",
    "federation.rounds=3",
)


def test_a_fitted_run_changes_splits_and_ends_as_the_fixed_one(make: Any, tmp_path: Path) -> None:
    fixed = run(make("federation.rounds=3"), out=tmp_path / "fixed")
    fitted = run(make(*FITTED), out=tmp_path / "fitted")
    chosen = [
        it.event
        for it in read_events(fitted.directory / "events.jsonl")
        if it.event.kind == "splits_chosen"
    ]
    assert len(chosen) > 1
    assert len({split for it in chosen for split in it.splits.values()}) > 1
    name = "adapter/adapter_model.safetensors"
    assert (fixed.directory / name).read_bytes() == (fitted.directory / name).read_bytes()


def test_a_fitted_run_that_was_stopped_ends_bit_identical(
    make: Any, traces: Callable[[Path], dict[str, Any]], tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    run(make(*FITTED), out=whole)
    heard: list[Event] = []
    with pytest.raises(Interrupted):
        run(
            make(*FITTED),
            out=out,
            listen=heard.append,
            stop=lambda: sum(it.kind == "round_finished" for it in heard) == 2,
        )
    resume(out)
    expected = traces(whole)
    for what, found in traces(out).items():
        assert found == expected[what], what

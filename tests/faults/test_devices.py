"""What breaks one device costs the round that device and nothing else."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elsa.engine.build import build_federation
from elsa.engine.globalround import DeviceRound, Watch
from elsa.engine.simulate import Simulation
from elsa.record import events
from elsa.record.directory import read_summary
from elsa.record.log import read_events
from elsa.wire.layers import Effect, Fault, corrupt, drop, truncate
from elsa.wire.messages import EdgeUpdate, Ready
from elsa.wire.transport import Direction, Passage

Drive = Callable[..., tuple[Any, Path]]

READY, HIDDEN, GRADIENT, UPDATE, AGAIN, EVALUATE = 0, 1, 4, 5, 6, 12
"""Number of a device's call in the first round: 2 local steps, 2 edge rounds."""
FAULTS: list[tuple[Effect, int, Direction, str]] = [
    (drop, READY, "up", "WireError"),
    (corrupt(), READY, "up", "FrameError"),
    (truncate(3), READY, "down", "FrameError"),
    (truncate(99), HIDDEN, "up", "FrameError"),
    (drop, HIDDEN, "down", "WireError"),
    (drop, GRADIENT, "up", "WireError"),
    (corrupt(), GRADIENT, "down", "FrameError"),
    (truncate(0), UPDATE, "up", "FrameError"),
    (drop, UPDATE, "down", "WireError"),
    (drop, AGAIN, "up", "WireError"),
]
TRUNKS = ("per-device", "shared")


class Round:
    """One global round of a federation with faults, and what everyone saw of it.

    Attributes:
        federation: as it stands afterwards.
        reports: by device.
        losses: by device, of its edge rounds, in order.
        weights: by edge, of what it reported to the cloud.
    """

    def __init__(self, config: Any, sources: Any, *faults: Fault, keep: Sequence[str] = ()) -> None:
        """Play it; `keep` names the only devices that there shall be."""
        self.weights: dict[str, float] = {}
        self.losses: dict[str, list[float]] = {}
        self.federation = build_federation(config, sources, [*faults, self._look])
        if keep:
            there = self.federation.cloud.assignment.items()
            kept = {edge: tuple(name for name in names if name in keep) for edge, names in there}
            self.federation.cloud.assignment = {edge: it for edge, it in kept.items() if it}
        simulation = Simulation(self.federation, Watch(device=self._note))
        self.reports = {report.device: report for report in simulation.train_round()}

    def _look(self, passage: Passage) -> bytes:
        if isinstance(passage.message, EdgeUpdate):
            self.weights[passage.link.below] = passage.message.weight
        return passage.data

    def _note(self, seen: DeviceRound) -> None:
        if not seen.lost:
            self.losses.setdefault(seen.device, []).append(seen.loss)

    @property
    def lost(self) -> set[str]:
        return {name for name, report in self.reports.items() if report.lost}

    @property
    def adapters(self) -> Mapping[str, Tensor]:
        adapters: Mapping[str, Tensor] = self.federation.cloud.adapters
        return adapters


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def happened(run: Path, *kinds: type[Any]) -> list[Any]:
    return [it.event for it in read_events(run / "events.jsonl") if isinstance(it.event, kinds)]


@pytest.fixture(scope="module", params=TRUNKS)
def config(request: pytest.FixtureRequest, make: Any) -> Any:
    return make(f"federation.trunk={request.param}")


@pytest.fixture(scope="module")
def unbroken(config: Any, sources: Any) -> Round:
    return Round(config, sources)


@pytest.mark.parametrize(("effect", "call", "direction", "kind"), FAULTS)
def test_broken_frame_loses_its_device_alone(
    effect: Effect,
    call: int,
    direction: Direction,
    kind: str,
    config: Any,
    sources: Any,
    unbroken: Round,
) -> None:
    broken = Round(config, sources, Fault("device-0", call, effect, direction))
    assert broken.lost == {"device-0"}
    assert broken.reports["device-0"].lost.startswith(f"{kind}: ")
    # The other edge notices nothing; the neighbour trains as much as ever.
    assert broken.reports["device-1"] == unbroken.reports["device-1"]
    assert broken.reports["device-2"].samples == unbroken.reports["device-2"].samples
    if config.federation.trunk == "per-device":
        assert broken.losses["device-2"][0] == unbroken.losses["device-2"][0]
    assert not same(broken.adapters, unbroken.adapters)
    assert broken.weights["edge-0"] == unbroken.reports["device-2"].rows


def test_round_that_loses_a_device_equals_one_that_never_had_it(
    config: Any, sources: Any, unbroken: Round
) -> None:
    broken = Round(config, sources, Fault("device-0", READY, drop))
    without = Round(config, sources, keep=("device-1", "device-2"))
    assert same(broken.adapters, without.adapters)
    assert not same(broken.adapters, unbroken.adapters)


@pytest.mark.parametrize("call", [READY, UPDATE])
def test_edge_without_devices_counts_nothing(call: int, config: Any, sources: Any) -> None:
    faults = [Fault(name, call, drop) for name in ("device-0", "device-2")]
    broken = Round(config, sources, *faults)
    without = Round(config, sources, keep=("device-1",))
    assert broken.lost == {"device-0", "device-2"}
    assert broken.weights["edge-0"] == 0
    assert same(broken.adapters, without.adapters)


def test_what_an_edge_averaged_before_it_lost_all_counts(
    config: Any, sources: Any, unbroken: Round
) -> None:
    names = ("device-0", "device-2")
    broken = Round(config, sources, *(Fault(name, AGAIN, drop) for name in names))
    assert broken.lost == set(names)
    assert broken.weights["edge-0"] == sum(unbroken.reports[name].rows for name in names)
    assert not same(broken.adapters, Round(config, sources, keep=("device-1",)).adapters)


def test_nobody_left_leaves_the_adapters_as_they_were(config: Any, sources: Any) -> None:
    before = build_federation(config, sources).cloud.adapters
    names = ("device-0", "device-1", "device-2")
    broken = Round(config, sources, *(Fault(name, UPDATE, drop) for name in names))
    assert broken.lost == set(names)
    assert same(broken.adapters, before)


def test_run_says_who_was_lost_and_goes_on_with_them(make: Any, drive: Drive) -> None:
    late = Fault("device-1", (1, 1), drop)
    _, run = drive(make("train.batch_size=5"), Fault("device-0", AGAIN, drop), late)
    lost = happened(run, events.DeviceLost)
    assert [(it.round, it.edge, it.device) for it in lost] == [
        (0, "edge-0", "device-0"),
        (1, "edge-1", "device-1"),
    ]
    assert all("the link broke" in it.reason for it in lost)
    ended = {(it.round, it.edge_round, it.device) for it in happened(run, events.DeviceFinished)}
    expected = {(a, b, f"device-{c}") for a in (0, 1) for b in (0, 1) for c in (0, 1, 2)}
    assert expected - ended == {(0, 1, "device-0"), (1, 0, "device-1"), (1, 1, "device-1")}
    assert ended < expected
    summary = read_summary(run)
    assert summary is not None
    assert summary["rounds"] == 2


def test_run_ends_when_everybody_is_always_lost(make: Any, drive: Drive) -> None:
    def cut(passage: Passage) -> bytes:
        if passage.link.tier == "device_edge" and not isinstance(passage.message, Ready):
            return drop(passage.data)
        return passage.data

    config = make("evaluate.every=9")
    federation, run = drive(config, cut)
    lost = happened(run, events.DeviceLost)
    evaluating = [it for it in lost if it.reason.startswith("in evaluation: ")]
    assert len(lost) - len(evaluating) == 6  # 3 devices in 2 rounds
    assert len(evaluating) == 4  # and, at the end, the tester too
    (scores,) = happened(run, events.Evaluated)
    assert scores.loss is None
    assert scores.accuracy is None
    assert [it.samples for it in happened(run, events.RoundFinished)] == [0, 0]
    assert federation.cloud.round == 2
    assert happened(run, events.RunFinished)


def test_device_lost_in_evaluation_is_left_out_of_the_scores(
    make: Any, drive: Drive, finished: Any
) -> None:
    _, run = drive(make(), Fault("device-1", EVALUATE + 1, drop))
    first, second = happened(run, events.Evaluated)
    whole, _ = happened(finished.directory, events.Evaluated)
    assert first.accuracy == whole.accuracy
    assert first.loss == whole.loss
    assert second.accuracy is not None
    (lost,) = happened(run, events.DeviceLost)
    assert (lost.device, lost.round) == ("device-1", 0)
    assert lost.reason.startswith("in evaluation: WireError: ")

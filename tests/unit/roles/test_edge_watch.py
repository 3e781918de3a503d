"""An edge round that is watched: what the edge reports, and what a verdict does."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from elsa.core.moves import move, packed_move, shared_axes, unpacked_moves
from elsa.core.trust import unpacked_answers, unpacked_step
from elsa.errors import AdapterError, ProtocolError
from elsa.model.adapters import block_of
from elsa.roles.edge import Edge
from elsa.roles.probing import Probing, Seen
from elsa.roles.trunk import PerDeviceTrunk, SharedTrunk
from elsa.wire.messages import EdgeUpdate, Update
from elsa.wire.watching import Behaviours, DeviceVerdict, Verdicts

World = Any
PROBES, AXES = 10, 3


def probing(seen: list[dict[str, Tensor]], judged: list[dict[str, Tensor]]) -> Probing:
    """Probes whose states are drawn once and moved by the sum of all adapters."""
    fixed = torch.randn(PROBES, AXES, generator=torch.Generator().manual_seed(0))

    def total(adapters: Mapping[str, Tensor]) -> float:
        return sum(float(it.sum()) for it in adapters.values())

    def look(head: str, split: object, adapters: Mapping[str, Tensor]) -> Seen:
        seen.append(dict(adapters))
        return Seen(fixed + 1e-2 * total(adapters))

    def judge(head: str, split: object, adapters: Mapping[str, Tensor], at: Seen) -> Tensor:
        judged.append(dict(adapters))
        return at.states[:, :2] * total(adapters)

    axes = shared_axes(AXES, AXES, 0)
    return Probing(look, judge, lambda before, after: packed_move(move(before, after, axes)))


def opened(world: World, trunks: Any = PerDeviceTrunk, **order: Any) -> tuple[Edge, list[Any]]:
    edge, looks = world.edge(trunks(world.optimizer)), [[], []]
    edge._model = replace(edge._model, probing=lambda: probing(*looks))
    edge.open(replace(world.order("d0", "d1"), watched=1, **order))
    return edge, looks


def trained(world: World, edge: Edge) -> Behaviours:
    world.in_turn([world.puppet(edge, name) for name in ("d0", "d1")])
    assert edge.watched
    return edge.behaviours()


def verdicts(**trust: float) -> Verdicts:
    return Verdicts(0, 0, tuple(DeviceVerdict(name, it) for name, it in trust.items()))


def ended(edge: Edge) -> EdgeUpdate:
    update = edge.close()
    assert isinstance(update, EdgeUpdate)
    return update


def test_each_device_is_seen_with_what_it_submitted_and_its_own_trunk(world: World) -> None:
    edge, (seen, judged) = opened(world, fingerprints=True)
    told = trained(world, edge)
    assert [it.device for it in told.behaviours] == ["d0", "d1"]
    before, *submitted = seen  # what all started from is looked at once
    by_head = [it for it in judged if any(not torch.equal(it[key], before[key]) for key in it)]
    assert len(submitted) == len(by_head) == 2
    assert before.keys() == world.adapters.keys()
    assert all(torch.equal(before[name], value) for name, value in world.adapters.items())
    for number, whole in enumerate(submitted):
        own = world.own((1, 1), scale=2.0 + number)
        assert all(torch.equal(whole[name], value) for name, value in own.items())
        trunk = whole.keys() - own.keys()
        assert trunk
        assert any(not torch.equal(whole[name], world.adapters[name]) for name in trunk)
    for whole, headed in zip(submitted, by_head, strict=True):
        assert any(block_of(name) is None for name in headed)
        for name, value in headed.items():
            assert torch.equal(value, (whole if block_of(name) is None else before)[name])
    for row in told.behaviours:
        moved = unpacked_answers(row.answers, PROBES)
        assert moved.shape == (PROBES, 2)
        assert float(moved.abs().min()) > 0
        assert unpacked_step(row.step)[0] > 0
        direction = unpacked_moves([row.fingerprint], AXES)[0]
        same = torch.nn.functional.normalize(torch.ones(AXES).double(), dim=0)
        same = same @ shared_axes(AXES, AXES, 0)  # the sum of adapters moves all states alike
        assert abs(float(direction @ same)) == pytest.approx(1.0, abs=1e-3)


def test_where_no_fingerprint_is_asked_for_the_model_runs_once(world: World) -> None:
    edge, (seen, judged) = opened(world)
    told = trained(world, edge)
    assert all(not it.fingerprint for it in told.behaviours)
    assert len(seen) == 1
    assert len(judged) == 4  # of each device, by its head and by the one before


@pytest.mark.parametrize("trunks", [PerDeviceTrunk, SharedTrunk])
def test_full_trust_is_an_edge_round_that_nobody_watched(world: World, trunks: Any) -> None:
    edge, _ = opened(world, trunks)
    trained(world, edge)
    edge.settle(verdicts(d0=1.0, d1=1.0))
    update, plain = ended(edge), world.alone("d0", "d1", shared=trunks is SharedTrunk)
    assert update.weight == plain.weight
    for name, value in plain.adapters.items():
        torch.testing.assert_close(update.adapters[name], value, rtol=0, atol=0)
    assert update.reports == plain.reports


def test_without_trust_a_device_leaves_no_trace_in_the_average(world: World) -> None:
    edge, _ = opened(world)
    trained(world, edge)
    edge.settle(verdicts(d0=0.0, d1=1.0))
    update, alone = ended(edge), world.alone("d1")
    assert update.weight == alone.weight
    for name, value in alone.adapters.items():
        torch.testing.assert_close(update.adapters[name], value, rtol=0, atol=0)


def test_trust_is_a_factor_on_the_rows(world: World) -> None:
    edge, _ = opened(world)
    trained(world, edge)
    edge.settle(verdicts(d0=0.5, d1=0.75))
    update = ended(edge)
    assert update.weight == 0.5 * 1 + 0.75 * 2
    name = max(world.own_names((1, 1)))
    start = world.adapters[name]
    expected = (0.5 * 1 * 2.0 * start + 0.75 * 2 * 3.0 * start) / 2.0
    torch.testing.assert_close(update.adapters[name], expected)


def test_nobody_trusted_changes_nothing(world: World) -> None:
    edge, _ = opened(world)
    trained(world, edge)
    edge.settle(verdicts(d0=0.0, d1=0.0))
    update = ended(edge)
    assert update.weight == 0
    assert all(torch.equal(update.adapters[name], it) for name, it in world.adapters.items())


def test_a_device_whose_answers_are_not_finite_is_left_out_with_the_reason(world: World) -> None:
    edge, _ = opened(world)
    inner = probing([], [])
    name = max(name for name in world.own_names((1, 1)) if block_of(name) is None)

    def judge(head: str, split: Any, adapters: Any, at: Seen) -> Tensor:
        odd = torch.equal(adapters[name], 2.0 * world.adapters[name])
        return inner.judge(head, split, adapters, at) * (torch.inf if odd else 1.0)

    edge._model = replace(edge._model, probing=lambda: replace(inner, judge=judge))
    told = trained(world, edge)
    assert [it.device for it in told.behaviours] == ["d1"]
    edge.settle(verdicts(d1=1.0))
    (lost, other) = ended(edge).reports
    assert "NaN or infinity" in lost.lost
    assert not other.lost


def test_an_update_that_is_not_finite_is_refused_when_it_comes(world: World) -> None:
    edge, _ = opened(world)
    puppet = world.puppet(edge)
    puppet.send(puppet.ready())
    for step in range(world.steps):
        puppet.step(step)
    bad = {name: value * torch.nan for name, value in puppet.update().adapters.items()}
    with pytest.raises(AdapterError, match="NaN"):
        puppet.send(Update(0, 0, bad, 1, 6, 0.5))


def test_a_link_that_breaks_after_the_update_does_not_take_it_back(world: World) -> None:
    edge, _ = opened(world)
    trained(world, edge)
    edge.lose("d1", "gone")
    edge.settle(verdicts(d0=0.0, d1=1.0))
    assert ended(edge).weight == 2


def test_verdicts_of_another_time_or_other_devices_are_refused(world: World) -> None:
    edge, _ = opened(world)
    trained(world, edge)
    with pytest.raises(ProtocolError, match=r"round 0\.1 came where 0\.0"):
        edge.settle(Verdicts(0, 1, ()))
    with pytest.raises(ProtocolError, match="lack or add device d1"):
        edge.settle(verdicts(d0=1.0))

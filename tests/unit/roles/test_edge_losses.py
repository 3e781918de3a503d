"""A device that misbehaves or goes missing costs nobody else anything."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from elsa.errors import ElsaError, ProtocolError
from elsa.roles.trunk import PerDeviceTrunk, SharedTrunk
from elsa.wire.messages import Message, Ready

World = Any


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], v) for k, v in other.items())


MISBEHAVIOUR: dict[str, Callable[[Any], Message]] = {
    "out of turn": lambda it: it.update(),
    "bad packet": lambda it: it.states(torch.full((9, it.world.hidden), torch.inf)),
    "too long": lambda it: it.states(torch.zeros(13, it.world.hidden), (13,)),
    "bad split": lambda it: Ready(0, 0, 9, 9),
    "other codec": lambda it: it.states(torch.zeros(9, it.world.hidden), codec="other"),
}


@pytest.mark.parametrize("shared", [False, True], ids=["per-device", "shared"])
@pytest.mark.parametrize("ready", [False, True], ids=["before ready", "after ready"])
@pytest.mark.parametrize("bad", MISBEHAVIOUR.values(), ids=MISBEHAVIOUR)
def test_a_device_that_misbehaves_is_left_out_and_the_others_finish(
    world: World, bad: Callable[[Any], Message], ready: bool, shared: bool
) -> None:
    edge = world.edge((SharedTrunk if shared else PerDeviceTrunk)(world.optimizer))
    edge.open(world.order())
    good = [world.linked(edge, name) for name in ("d0", "d2")]
    odd = world.linked(edge, "d1")
    for puppet in good:
        puppet.send(puppet.ready())
    if ready:
        odd.send(odd.ready())
    good[0].step(0)
    with pytest.raises(ElsaError):
        odd.send(bad(odd))
    with pytest.raises(ProtocolError):
        odd.send(odd.forward())  # its session has ended
    with pytest.raises(ProtocolError):
        odd.send(odd.ready())
    good[1].step(0)
    for puppet in good:
        puppet.step(1)
        puppet.send(puppet.update())
    update = world.closed(edge)
    expected = world.alone("d0", "d2", shared=shared)
    assert equal(update.adapters, expected.adapters)
    assert update.weight == expected.weight == 4.0
    assert [report.lost != "" for report in update.reports] == [False, True, False]


@pytest.mark.parametrize("shared", [False, True], ids=["per-device", "shared"])
def test_device_lost_after_its_update_is_in_the_average_and_in_its_weight(
    world: World, shared: bool
) -> None:
    """A link that breaks under the last answer must not break the edge's round."""
    edge = world.edge((SharedTrunk if shared else PerDeviceTrunk)(world.optimizer))
    edge.open(world.order("d0", "d1"))
    world.in_turn([world.linked(edge, "d0"), world.linked(edge, "d1")])
    edge.lose("d1", "link broken")
    update = world.closed(edge)
    expected = world.alone("d0", "d1", shared=shared)
    assert equal(update.adapters, expected.adapters)
    assert update.weight == expected.weight == 3.0
    assert [report.lost for report in update.reports] == ["", "link broken"]


def test_device_lost_in_a_later_edge_round_counts_in_the_earlier_one(world: World) -> None:
    edge = world.edge()
    edge.open(world.order("d0", "d1", edge_rounds=2))
    for name in ("d0", "d1"):
        world.puppet(edge, name).train()
    edge.close_edge_round()
    edge.lose("d1", "gone")
    world.puppet(edge, "d0").train(1)
    update = world.closed(edge)
    assert update.weight == 1.0
    assert [(it.device, it.samples, it.lost) for it in update.reports] == [
        ("d0", 12, ""),
        ("d1", 6, "gone"),
    ]


def test_shared_trunk_waits_for_nobody_lost_in_an_earlier_edge_round(world: World) -> None:
    edge = world.edge(SharedTrunk(world.optimizer))
    edge.open(world.order("d0", "d1", edge_rounds=2))
    edge.lose("d1", "gone")
    world.puppet(edge, "d0").train()
    edge.close_edge_round()
    world.puppet(edge, "d0").train(1)
    assert world.closed(edge).weight == 1.0


def test_all_lost_in_the_last_edge_round_leaves_the_average_before(world: World) -> None:
    edge = world.edge()
    edge.open(world.order("d0", "d1", edge_rounds=2))
    for name in ("d0", "d1"):
        world.puppet(edge, name).train()
    edge.close_edge_round()
    for name in ("d0", "d1"):
        edge.lose(name, "gone")
    update = world.closed(edge)
    assert equal(update.adapters, world.alone("d0", "d1").adapters)
    assert update.weight == 3.0


def test_all_lost_leaves_the_adapters_with_no_weight(world: World) -> None:
    edge = world.edge()
    edge.open(world.order("d0"))
    edge.lose("d0", "gone")
    update = world.closed(edge)
    assert equal(update.adapters, world.adapters)
    assert update.weight == 0.0


def test_running_ahead_of_a_shared_trunk_is_refused_before_it_computes(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    edge = world.edge(SharedTrunk(world.optimizer))
    edge.open(world.order("d0", "d1"))
    fast, slow = world.linked(edge, "d0"), world.linked(edge, "d1")
    fast.send(fast.ready())
    slow.send(slow.ready())
    fast.step(0)
    with caplog.at_level(logging.ERROR), pytest.raises(ProtocolError, match="local step 1"):
        fast.send(fast.forward(1))
    assert not caplog.records
    for step in range(world.steps):
        slow.step(step)
    slow.send(slow.update())
    assert world.closed(edge).weight == 2.0

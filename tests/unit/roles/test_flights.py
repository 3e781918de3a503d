"""An edge whose devices' updates come on a virtual clock: late ones count later, by their age."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from elsa.core.aggregate import WeightedMean
from elsa.core.split import Split
from elsa.roles.edge import Edge
from elsa.roles.edgeround import Held, Learned
from elsa.roles.flights import Flights
from elsa.roles.trunk import PerDeviceTrunk
from elsa.wire.messages import EdgeUpdate

World = Any
NAMES = ("d0", "d1", "d2")
ZEROS, ONES = {"w": torch.zeros(1)}, {"w": torch.ones(1)}


def opened(world: World, exponent: float = 1.0, edge_rounds: int = 2) -> Edge:
    edge: Edge = world.edge(PerDeviceTrunk(world.optimizer))
    edge._flights = Flights(exponent)
    edge.open(world.order(*NAMES, edge_rounds=edge_rounds))
    return edge


def ended(edge: Edge) -> EdgeUpdate:
    update = edge.close()
    assert isinstance(update, EdgeUpdate)
    return update


def near(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(got[name], value.float(), rtol=1e-6, atol=1e-7), name


def test_when_all_have_come_it_is_the_plain_average_bit_for_bit(world: World) -> None:
    edge = opened(world)
    world.in_turn([world.puppet(edge, name) for name in NAMES])
    for name in reversed(NAMES):  # whatever the order in which they come
        assert edge.arrive(name)
    edge.close_edge_round()
    got, expected = ended(edge), world.alone(*NAMES)
    assert all(torch.equal(got.adapters[key], it) for key, it in expected.adapters.items())
    assert (got.weight, got.reports) == (expected.weight, expected.reports)
    assert edge.flights() == {}


def test_a_late_update_is_out_of_one_average_and_in_a_later_one_by_hand(world: World) -> None:
    edge = opened(world)
    world.in_turn([world.puppet(edge, name) for name in NAMES])
    assert [edge.arrive(name) for name in ("d0", "d1")] == [True, True]
    edge.close_edge_round()
    first = dict(edge._current.adapters)
    near(first, world.alone("d0", "d1").adapters)
    # d2 learned from what all began with; both halves of its update count half as much.
    learned = world.alone("d2").adapters
    assert edge.arrive("d2")
    assert not edge.arrive("d2")
    edge.close_edge_round()
    update = ended(edge)
    begun = world.adapters
    expected = {k: first[k] + 0.5 * (learned[k] - begun[k]) for k in first}
    near(update.adapters, expected)
    trunk = [name for name in expected if name not in world.own_names((1, 1))]
    assert any(not torch.equal(learned[name], begun[name]) for name in trunk)
    assert update.weight == 3.0  # rows of d2
    samples = {it.device: it.samples for it in update.reports}
    assert samples == {"d0": 6, "d1": 6, "d2": 6}
    assert edge.flights() == {}


def test_late_and_fresh_updates_are_weighed_by_rows(world: World) -> None:
    edge = opened(world, exponent=0.5)
    world.in_turn([world.puppet(edge, name) for name in NAMES])
    edge.arrive("d0")
    edge.close_edge_round()
    first = dict(edge._current.adapters)
    world.puppet(edge, "d0").train(edge_round=1)
    for name in ("d1", "d2", "d0"):
        assert edge.arrive(name)
    edge.close_edge_round()
    late = {name: world.alone(name).adapters for name in ("d1", "d2")}
    # The fresh one alone, from what the first average gave, with the moments it had then.
    alone = opened(world, exponent=0.5)
    world.in_turn([world.puppet(alone, "d0")])
    alone.arrive("d0")
    alone.close_edge_round()
    world.puppet(alone, "d0").train(edge_round=1)
    alone.arrive("d0")
    alone.close_edge_round()
    own, weight = ended(alone).adapters, 2**-0.5
    expected = {
        key: (
            1 * own[key]
            + 2 * (first[key] + weight * (late["d1"][key] - world.adapters[key]))
            + 3 * (first[key] + weight * (late["d2"][key] - world.adapters[key]))
        )
        / 6
        for key in first
    }
    near(ended(edge).adapters, expected)


def test_dropped_is_never_counted_and_the_others_are_as_if_it_were_not_there(world: World) -> None:
    edge = opened(world, edge_rounds=1)
    world.in_turn([world.puppet(edge, name) for name in NAMES])
    edge.arrive("d0")
    edge.arrive("d1")
    edge.drop("d2", "late")
    edge.close_edge_round()
    got = ended(edge)
    near(got.adapters, world.alone("d0", "d1").adapters)
    # Its rows are told all the same: what left it is accounted for.
    told = {it.device: (it.lost, it.samples, it.rows) for it in got.reports}
    assert told["d2"] == ("late", 0, 3)
    assert edge.flights() == {}


def test_updates_on_their_way_outlast_an_order_and_a_checkpoint(world: World) -> None:
    def begun() -> Edge:
        edge = opened(world, edge_rounds=1)
        world.in_turn([world.puppet(edge, name) for name in NAMES])
        edge.arrive("d1")
        edge.close_edge_round()
        ended(edge)
        return edge

    def after(edge: Edge) -> EdgeUpdate:
        order = world.order(*NAMES, edge_rounds=1)
        edge.open(type(order)(1, 1, order.local_steps, order.devices, order.adapters))
        assert edge.arrive("d2")
        edge.close_edge_round()
        return ended(edge)

    whole, other = begun(), opened(world, edge_rounds=1)
    state = {key: value.clone() for key, value in whole.flights().items()}
    assert {key.split("/")[1] for key in state} == {"d0", "d2", "0"}
    other.restore(whole.moments(), whole.memory(), state)
    got, expected = after(other), after(whole)
    assert got.reports == expected.reports
    assert all(torch.equal(got.adapters[key], it) for key, it in expected.adapters.items())
    assert {key.split("/")[1] for key in other.flights()} == {"d0", "0"}


def test_what_nobody_needs_is_forgotten() -> None:
    flights, mean = Flights(1.0), WeightedMean()
    for name in NAMES:
        flights.begin(name)
        flights.put(name, Held(ONES, Split.of(4, 1, 1), Learned(1, 1, 0.0, "")), ZEROS)
        assert flights.average() == {}
    flights.open(4)
    assert flights.come("d1")
    assert flights.average() == {"d1": 3}
    flights.take("d1", 3, ZEROS, mean)
    flights.lose("d0")
    assert flights.state().keys() == {"facts/d2", "update/d2/w", "begun/2/w"}
    assert mean.result(ZEROS)["w"].item() == pytest.approx(0.25)

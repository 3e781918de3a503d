"""The edge server as its devices meet it when all goes well."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from elsa.core.codec import Frame, Identity
from elsa.roles.edge import Edge
from elsa.roles.trunk import PerDeviceTrunk, SharedTrunk
from elsa.wire.messages import (
    Accepted,
    Activations,
    EdgeScores,
    EvaluationOrder,
    Gradients,
    LocalPlan,
    Ready,
    Score,
)

World = Any


def opened(world: World) -> tuple[Edge, Any]:
    edge = world.edge()
    edge.open(world.order())
    return edge, world.puppet(edge)


def evaluating(world: World) -> tuple[Edge, Any]:
    edge = world.edge()
    edge.open(EvaluationOrder(4, ("d0", "d1", "d2"), world.adapters))
    return edge, world.puppet(edge)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], v) for k, v in other.items())


@pytest.mark.parametrize("cuts", [(1, 1), (2, 0), (1, 0)], ids=str)
def test_plan_holds_the_adapters_of_the_devices_own_blocks(
    world: World, cuts: tuple[int, int]
) -> None:
    edge, _ = opened(world)
    plan = edge.handle("d0", Ready(0, 0, *cuts))
    assert isinstance(plan, LocalPlan)
    assert (plan.round, plan.edge_round, plan.local_steps) == (0, 0, world.steps)
    assert equal(plan.adapters, world.own(cuts))


def test_trunk_computes_and_gives_back_the_gradients_of_its_input(world: World) -> None:
    _, puppet = opened(world)
    puppet.send(puppet.ready())
    answer = puppet.send(puppet.forward())
    back = puppet.send(puppet.backward())
    h1 = Identity().decode(puppet.values(0), Frame(world.lengths)).requires_grad_()
    g2 = Identity().decode(puppet.values(50), Frame(world.lengths))
    trunk = world.trunk(world.split(1, 1))
    trunk.bind(world.adapters)
    h2 = torch.cat([trunk(text[None])[0] for text in h1.split(world.lengths)])
    assert isinstance(answer, Activations)
    assert isinstance(back, Gradients)
    assert answer.lengths == world.lengths
    got = Identity().decode(answer.packet, Frame(world.lengths))
    torch.testing.assert_close(got, h2.detach())
    got = Identity().decode(back.packet, Frame(world.lengths))
    torch.testing.assert_close(got, torch.autograd.grad(h2, h1, g2)[0])


def test_average_is_over_devices_by_rows_and_over_all_of_their_adapters(world: World) -> None:
    edge = world.edge()
    edge.open(world.order("d0", "d2"))
    for name in ("d0", "d2"):
        world.puppet(edge, name).train()
    update = world.closed(edge)
    assert (update.round, update.weight) == (0, 4.0)
    assert [(it.device, it.rows, it.samples, it.loss, it.lost) for it in update.reports] == [
        ("d0", 1, 6, 0.5, ""),
        ("d2", 3, 6, 0.5, ""),
    ]
    assert list(update.adapters) == list(world.adapters)
    for name, value in world.own((1, 1)).items():  # updates are 2 and 4 times the start
        torch.testing.assert_close(update.adapters[name], value * (1 * 2 + 3 * 4) / 4)
    trained = world.adapters.keys() - world.own_names((1, 1))
    assert trained
    assert not any(torch.equal(update.adapters[name], world.adapters[name]) for name in trained)


def test_edge_rounds_go_on_from_their_average(world: World) -> None:
    edge = world.edge()
    edge.open(world.order("d0", "d1", edge_rounds=2))
    for name in ("d0", "d1"):
        world.puppet(edge, name).train()
    edge.close_edge_round()
    plan = edge.handle("d1", Ready(0, 1, 1, 1))
    assert isinstance(plan, LocalPlan)
    for name, value in world.own((1, 1)).items():
        torch.testing.assert_close(plan.adapters[name], value * (1 * 2 + 2 * 3) / 3)


def test_trunk_of_the_second_edge_round_is_the_average_of_the_first(world: World) -> None:
    """Trained in two edge rounds of fresh moments = trained, averaged, and trained again."""
    optimizer = replace(world.optimizer, keep_moments=False)
    once, twice = (world.edge(PerDeviceTrunk(optimizer)) for _ in range(2))
    twice.open(world.order("d0", "d1", edge_rounds=2))
    for edge_round in range(2):
        for name in ("d0", "d1"):
            world.puppet(twice, name).train(edge_round)
        if not edge_round:
            twice.close_edge_round()
    start = world.adapters
    for _ in range(2):
        once.open(replace(world.order("d0", "d1"), adapters=start))
        for name in ("d0", "d1"):
            world.puppet(once, name).train()
        start = world.closed(once).adapters
    assert equal(world.closed(twice).adapters, start)


def test_an_order_stays_as_it_came(world: World) -> None:
    before = {name: value.clone() for name, value in world.adapters.items()}
    for trunks in (PerDeviceTrunk(world.optimizer), SharedTrunk(world.optimizer)):
        edge = world.edge(trunks)
        edge.open(world.order("d0"))
        world.puppet(edge).train()
        world.closed(edge)
    assert equal(world.adapters, before)


def test_evaluation_takes_batches_and_then_the_score(world: World) -> None:
    edge, puppet = evaluating(world)
    plan = puppet.send(puppet.ready(round_=4))
    assert isinstance(plan, LocalPlan)
    assert plan.local_steps == 0
    first = puppet.send(puppet.forward(0, training=False))
    assert isinstance(first, Activations)
    puppet.send(puppet.forward(1, training=False))
    assert puppet.send(Score(4, 10, 7, 0.25)) == Accepted()
    answer = edge.close()
    assert isinstance(answer, EdgeScores)
    assert [(it.device, it.items, it.correct, it.loss) for it in answer.scores] == [
        ("d0", 10, 7, 0.25)
    ]
    # Evaluation computes what training computes.
    _, training = opened(world)
    training.send(training.ready())
    assert training.send(training.forward(0)).packet == first.packet


def test_devices_with_other_splits_share_an_edge(world: World) -> None:
    """Each name is averaged over both, whoever of device and edge held it."""
    edge = world.edge()
    edge.open(world.order("d0", "d1"))
    deep = world.puppet(edge, "d0", (2, 0))
    flat = world.puppet(edge, "d1")
    deep.send(deep.ready())
    flat.send(flat.ready())
    for step in range(world.steps):
        deep.step(step)
        flat.step(step)
    deep.send(deep.update())
    flat.send(flat.update())
    update = world.closed(edge)
    both = world.own_names((2, 0)) & world.own_names((1, 1))
    for name in both:
        torch.testing.assert_close(update.adapters[name], world.adapters[name] * (2 + 2 * 3) / 3)
    assert update.adapters.keys() == world.adapters.keys()


def test_moments_go_on_after_a_restart(world: World) -> None:
    first, second = world.edge(), world.edge()
    first.open(world.order("d0"))
    world.puppet(first).train()
    world.closed(first)
    second.restore(first.moments(), {})
    results = []
    for edge in (first, second, world.edge()):
        edge.open(world.order("d0"))
        world.puppet(edge).train()
        results.append(world.closed(edge).adapters)
    assert equal(results[0], results[1])
    assert not equal(results[0], results[2])

"""Other means than the plain one, and ranks of devices' own, where edge and cloud meet them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from elsa.core.aggregate import WeightedMean
from elsa.core.lowrank import cut, padded
from elsa.core.robust import Gathered, coordinate_median, krum
from elsa.core.serveropt import FedAdam
from elsa.errors import AdapterError, ProtocolError
from elsa.roles.cloud import Cloud, Schedule
from elsa.roles.edge import Edge
from elsa.roles.learner import Learner, OptimizerSettings
from elsa.roles.trunk import PerDeviceTrunk, SharedTrunk
from elsa.wire.messages import EdgeUpdate, LocalPlan, Ready, Update

World = Any
ADAM = FedAdam(learning_rate=0.1, beta1=0.9, beta2=0.99, tau=1e-3)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], v) for k, v in other.items())


def played(world: World, edge: Edge, *names: str) -> dict[str, Tensor]:
    edge.open(world.order(*names))
    world.in_turn([world.puppet(edge, name) for name in names])
    result: dict[str, Tensor] = world.closed(edge).adapters
    return result


@pytest.mark.parametrize("kind", [PerDeviceTrunk, SharedTrunk])
def test_an_edge_gives_its_rule_whole_updates_with_their_trunks(
    world: World, kind: Callable[..., Any]
) -> None:
    """Krum takes one device's update, own blocks and trunk copy; alone it would send the same."""
    edge = world.edge(kind(world.optimizer))
    edge._new_mean = partial(Gathered, partial(krum, byzantine=0))
    got = played(world, edge, "d0", "d1", "d2")
    own = world.own_names((1, 1))
    (chosen,) = {
        name
        for name in ("d0", "d1", "d2")
        if all(torch.equal(got[key], world.own((1, 1), 2.0 + int(name[1:]))[key]) for key in own)
    }
    if kind is PerDeviceTrunk:
        assert equal(got, world.alone(chosen).adapters)


def test_median_at_an_edge_is_that_of_the_devices_alone(world: World) -> None:
    edge = world.edge()
    edge._new_mean = partial(Gathered, coordinate_median)
    got = played(world, edge, "d0", "d1", "d2")
    single = [world.alone(name).adapters for name in ("d0", "d1", "d2")]
    for name, value in got.items():
        assert torch.equal(value, torch.stack([it[name] for it in single]).median(0).values)


def ranked(world: World, edge: Edge, name: str, rank: int) -> LocalPlan:
    plan = edge.handle(name, Ready(0, 0, 1, 1, rank=rank))
    assert isinstance(plan, LocalPlan)
    return plan


@pytest.mark.parametrize("rank", [0, 2])
def test_a_device_of_the_common_rank_gets_what_it_always_got(world: World, rank: int) -> None:
    edge = world.edge()
    edge.open(world.order())
    assert equal(ranked(world, edge, "d0", rank).adapters, world.own((1, 1)))


def test_a_device_of_a_small_rank_gets_and_sends_its_own_rank(world: World) -> None:
    edge = world.edge()
    edge.open(world.order("d0", "d2"))
    plan = ranked(world, edge, "d0", 1)
    assert equal(plan.adapters, cut(world.own((1, 1)), 1))
    puppet = world.puppet(edge, "d0")
    for step in range(world.steps):
        puppet.step(step)
    with pytest.raises(AdapterError, match=r"d0: .*lora_A.* has shape \[2, 8\], not \[1, 8\]"):
        puppet.send(puppet.update())
    puppet.send(Update(0, 0, cut(world.own((1, 1), 2.0), 1), 1, 6, 0.5))
    world.puppet(edge, "d2").train()
    got = world.closed(edge).adapters
    small, large = padded(cut(world.own((1, 1), 2.0), 1), 2), world.own((1, 1), 4.0)
    for name, value in large.items():  # rows that a device has not count as zeros
        torch.testing.assert_close(got[name], (1 * small[name] + 3 * value) / 4)
    trunk = world.adapters.keys() - world.own_names((1, 1))
    assert {got[name].shape for name in trunk} == {world.adapters[name].shape for name in trunk}


@pytest.mark.parametrize("rank", [3, 4096])
def test_a_rank_above_the_common_one_is_refused(world: World, rank: int) -> None:
    edge = world.edge()
    edge.open(world.order())
    with pytest.raises(ProtocolError, match=f"d0 asks for adapters of rank {rank}; allowed: 1 to"):
        edge.handle("d0", Ready(0, 0, 1, 1, rank=rank))


def test_a_device_asks_for_its_rank_and_trains_it(world: World) -> None:
    device = world.device("d0", world.examples(6))
    device._settings = device._settings.__class__(**{**vars(device._settings), "rank": 1})
    edge = world.edge()
    edge.open(world.order("d0"))
    sent = []

    def hear(request: Any) -> Any:
        sent.append(request)
        return edge.handle("d0", request)

    world.play(device.train(0, 0), hear)
    assert sent[0].rank == 1
    start = cut(world.own((1, 1)), 1)
    assert {name: it.shape for name, it in sent[-1].adapters.items()} == {
        name: it.shape for name, it in start.items()
    }
    assert not any(torch.equal(it, start[name]) for name, it in sent[-1].adapters.items())


# FedProx.

PROX = OptimizerSettings(learning_rate=0.1, weight_decay=0.05, keep_moments=True, proximal=0.3)


def test_proximal_gradient_is_the_gradient_and_mu_times_the_way_gone() -> None:
    """Against autograd of the loss with the term written out, over three steps."""
    start = {"a": torch.tensor([[1.0, -2.0], [0.5, 3.0]])}
    learner = Learner(start, PROX)
    free = torch.nn.Parameter(start["a"].clone())
    optimizer = torch.optim.AdamW([free], lr=0.1, weight_decay=0.05, fused=True)
    for step in range(3):
        target = torch.full((2, 2), float(step))
        learner.gather({"a": 2 * (learner.parameters["a"].detach() - target)})
        learner.step()
        loss = (free - target).square().sum() + 0.3 / 2 * (free - start["a"]).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(learner.tensors()["a"], free.detach(), rtol=1e-6, atol=1e-6)
    plain = Learner(start, OptimizerSettings(0.1, 0.05, True))
    for step in range(3):
        plain.gather({"a": 2 * (plain.parameters["a"].detach() - step)})
        plain.step()
    assert not torch.allclose(plain.tensors()["a"], free.detach(), atol=1e-4)


def test_a_shared_trunk_is_pulled_once_a_step_however_many_devices_it_has() -> None:
    start = {"a": torch.ones(2, 2)}
    trunk, alone = SharedTrunk(PROX), Learner(start, PROX)
    trunk.open(start, ("one", "two"))
    for peer in ("one", "two"):
        trunk.join(peer, ("a",))
    for step in range(3):
        gradient = torch.full((2, 2), 0.25)
        for peer in ("one", "two"):
            trunk.gather(peer, step, {"a": gradient}, 4)
        alone.gather({"a": gradient})
        alone.step()
    mean = WeightedMean()
    trunk.contribute("one", 1.0, mean)
    trunk.close(mean)
    assert equal(mean.result(start), alone.tensors())


# The cloud's optimizer.


def update(round_: int, value: float, weight: float = 1.0) -> EdgeUpdate:
    return EdgeUpdate(round_, {"a": torch.full((3,), value)}, weight, ())


def clouds() -> Cloud:
    return Cloud(
        {"a": torch.zeros(3)}, {"edge-0": ("d",)}, Schedule(1, 1, 1.0, seed=0), server=ADAM
    )


def test_the_cloud_steps_towards_the_mean() -> None:
    it = clouds()
    expected, state = {"a": torch.zeros(3)}, {}
    for number, (one, two) in enumerate([(1.0, 5.0), (-2.0, 0.5)]):
        it.receive("edge-0", update(number, one, 3.0))
        it.receive("edge-1", update(number, two, 1.0))
        it.close_round()
        mean = {"a": torch.full((3,), (3 * one + two) / 4)}
        expected, state = ADAM.step(expected, mean, state)
        assert equal(it.adapters, expected)
        assert equal(it.moments(), state)


def test_a_round_without_updates_moves_neither_adapters_nor_moments() -> None:
    it = clouds()
    it.receive("edge-0", update(0, 1.0))
    it.close_round()
    adapters, moments = dict(it.adapters), dict(it.moments())
    it.receive("edge-0", update(1, 9.0, weight=0.0))
    it.close_round()
    assert equal(it.adapters, adapters)
    assert equal(it.moments(), moments)


def test_a_restored_cloud_steps_as_the_first_would() -> None:
    whole, first, second = clouds(), clouds(), clouds()
    for it in (whole, first):
        it.receive("edge-0", update(0, 1.0))
        it.close_round()
    second.restore(first.adapters, 1, first.moments())
    for it in (whole, second):
        it.receive("edge-0", update(1, -4.0))
        it.close_round()
    assert equal(second.adapters, whole.adapters)

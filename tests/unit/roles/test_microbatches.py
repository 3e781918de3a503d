"""Several micro-batches of a device under way at its edge: how many, and in which order."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from elsa.core.noise import Noise
from elsa.core.secret import SecretSeed
from elsa.errors import ProtocolError
from elsa.roles.perturb import Disguise
from elsa.wire.messages import Activations, Gradients, Message

World = Any
MOST = 3


def forward(puppet: Any, number: int, *, more: bool, step: int = 0) -> Activations:
    return replace(puppet.forward(step), micro_batch=number, more=more)


def backward(puppet: Any, number: int, step: int = 0) -> Gradients:
    return replace(puppet.backward(step), micro_batch=number)


def begun(world: World, in_flight: int = MOST) -> tuple[Any, Any]:
    edge = world.edge(in_flight=in_flight)
    edge.open(world.order())
    puppet = world.puppet(edge)
    puppet.send(puppet.ready())
    return edge, puppet


def test_as_many_as_agreed_on_wait_and_one_more_is_refused(world: World) -> None:
    edge, puppet = begun(world)
    for number in range(MOST - 1):
        puppet.send(forward(puppet, number, more=True))
    assert edge.pending == MOST - 1
    with pytest.raises(ProtocolError, match=r"holds 3 of a device at once \(train\.in_flight"):
        puppet.send(forward(puppet, MOST - 1, more=True))
    puppet.send(forward(puppet, MOST - 1, more=False))
    assert edge.pending == MOST
    for number in range(MOST):
        puppet.send(backward(puppet, number))
        assert edge.pending == MOST - 1 - number
    puppet.send(forward(puppet, 0, more=False, step=1))  # the step is over


Ask = Callable[[Any], Message]
TWO = (lambda it: forward(it, 0, more=True), lambda it: forward(it, 1, more=False))
OUT_OF_TURN: dict[str, tuple[tuple[Ask, ...], Ask]] = {
    "one twice": (TWO[:1], TWO[0]),
    "one after its gradients": ((TWO[0], lambda it: backward(it, 0)), TWO[0]),
    "one after the last": (TWO, lambda it: forward(it, 2, more=False)),
    "a last one below others": (
        (lambda it: forward(it, 1, more=True),),
        lambda it: forward(it, 0, more=False),
    ),
    "gradients of one that has not come": (TWO[:1], lambda it: backward(it, 1)),
    "gradients of one twice": ((*TWO, lambda it: backward(it, 0)), lambda it: backward(it, 0)),
    "the next step before the last one's end": (
        (*TWO, lambda it: backward(it, 0)),
        lambda it: forward(it, 0, more=False, step=1),
    ),
    "an update before the last one's end": (
        (*TWO, lambda it: backward(it, 0)),
        lambda it: it.update(),
    ),
}


@pytest.mark.parametrize(("before", "request_"), OUT_OF_TURN.values(), ids=OUT_OF_TURN)
def test_out_of_turn_is_refused(world: World, before: tuple[Ask, ...], request_: Ask) -> None:
    _, puppet = begun(world)
    for ask in before:
        puppet.send(ask(puppet))
    with pytest.raises(ProtocolError):
        puppet.send(request_(puppet))


def test_an_edge_that_agreed_on_one_takes_no_second(world: World) -> None:
    _, puppet = begun(world, in_flight=1)
    with pytest.raises(ProtocolError, match="holds 1 of a device"):
        puppet.send(forward(puppet, 0, more=True))


def test_each_micro_batch_has_noise_of_its_own() -> None:
    whole = Disguise(None, Noise(1.0, 1.0), SecretSeed(bytes(32)), Noise(1.0, 1.0))
    states, sizes = torch.zeros(2, 4), (2,)
    shown = [(it.show(states), it.slope(states, sizes)) for it in (whole, *map(whole.part, (0, 1)))]
    for hidden, slope in shown:
        same = [(torch.equal(hidden, h), torch.equal(slope, s)) for h, s in shown]
        assert same.count((True, True)) == same.count((False, False)) - 1 == 1
    assert torch.equal(whole.part(1).show(states), shown[2][0])

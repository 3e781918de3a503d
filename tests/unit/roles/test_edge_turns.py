"""The edge server as a state machine: everything out of turn is refused."""

from collections.abc import Callable
from operator import methodcaller
from typing import Any

import pytest

from elsa.errors import ProtocolError, SplitError
from elsa.roles.edge import Edge
from elsa.wire.messages import Accepted, EvaluationOrder, Message, Ready, Score

World = Any


def opened(world: World) -> tuple[Edge, Any]:
    edge = world.edge()
    edge.open(world.order())
    return edge, world.puppet(edge)


def evaluating(world: World) -> tuple[Edge, Any]:
    edge = world.edge()
    edge.open(EvaluationOrder(4, ("d0", "d1", "d2"), world.adapters))
    return edge, world.puppet(edge)


Play = Callable[[Any], object]
"""What a puppet does before its odd request."""


def sent(*messages: Callable[[Any], Message]) -> Play:
    def play(puppet: Any) -> None:
        for message in messages:
            puppet.send(message(puppet))

    return play


def stepped(puppet: Any) -> None:
    """All local steps done, and the update due."""
    puppet.send(puppet.ready())
    for step in range(puppet.world.steps):
        puppet.step(step)


READY = methodcaller("ready")
FORWARD = methodcaller("forward")
BACKWARD = methodcaller("backward")
UPDATE = methodcaller("update")
OUT_OF_TURN: dict[str, tuple[Play, Callable[[Any], Message]]] = {
    "ready twice": (sent(READY), READY),
    "ready after the update": (methodcaller("train"), READY),
    "ready for the next round": (sent(), lambda it: it.ready(round_=1)),
    "ready for the next edge round": (sent(), lambda it: it.ready(edge_round=1)),
    "activations before ready": (sent(), FORWARD),
    "activations after the update": (methodcaller("train"), FORWARD),
    "activations twice": (sent(READY, FORWARD), FORWARD),
    "activations of a later step": (sent(READY), lambda it: it.forward(1)),
    "activations of the step before": (sent(READY, FORWARD, BACKWARD), FORWARD),
    "activations beyond the last step": (stepped, lambda it: it.forward(it.world.steps)),
    "evaluation in training": (sent(READY), lambda it: it.forward(training=False)),
    "gradients before ready": (sent(), BACKWARD),
    "gradients before activations": (sent(READY), BACKWARD),
    "gradients twice": (sent(READY, FORWARD, BACKWARD), BACKWARD),
    "gradients of another step": (sent(READY, FORWARD), lambda it: it.backward(1)),
    "update before ready": (sent(), UPDATE),
    "update before the first step": (sent(READY), UPDATE),
    "update before the last step": (sent(READY, FORWARD, BACKWARD), UPDATE),
    "update in the middle of a step": (
        sent(READY, FORWARD, BACKWARD, lambda it: it.forward(1)),
        UPDATE,
    ),
    "update twice": (methodcaller("train"), UPDATE),
    "score in training": (sent(READY), lambda it: Score(0, 1, 1, 0.0)),
    "score before ready": (sent(), lambda it: Score(0, 1, 1, 0.0)),
    "an edge's message": (sent(READY), lambda it: Accepted()),
    "a cloud's message": (sent(READY), lambda it: EvaluationOrder(0, ("d0",), {})),
}


@pytest.mark.parametrize(("before", "request_"), OUT_OF_TURN.values(), ids=OUT_OF_TURN)
def test_out_of_turn_in_training_is_refused(
    world: World, before: Play, request_: Callable[[Any], Message]
) -> None:
    _, puppet = opened(world)
    before(puppet)
    with pytest.raises(ProtocolError):
        puppet.send(request_(puppet))


def ended(puppet: Any) -> None:
    sent(lambda it: it.ready(4), lambda it: Score(4, 1, 1, 0.0))(puppet)


OUT_OF_TURN_EVALUATING: dict[str, tuple[Play, Callable[[Any], Message]]] = {
    "training": (sent(lambda it: it.ready(4)), FORWARD),
    "gradients": (
        sent(lambda it: it.ready(4), lambda it: it.forward(training=False)),
        BACKWARD,
    ),
    "update": (sent(lambda it: it.ready(4)), UPDATE),
    "activations of a later step": (
        sent(lambda it: it.ready(4)),
        lambda it: it.forward(1, training=False),
    ),
    "score of another round": (sent(lambda it: it.ready(4)), lambda it: Score(3, 1, 1, 0.0)),
    "ready of another round": (sent(), READY),
    "ready after the score": (ended, lambda it: it.ready(4)),
    "score twice": (ended, lambda it: Score(4, 1, 1, 0.0)),
}


@pytest.mark.parametrize(
    ("before", "request_"), OUT_OF_TURN_EVALUATING.values(), ids=OUT_OF_TURN_EVALUATING
)
def test_out_of_turn_in_evaluation_is_refused(
    world: World, before: Play, request_: Callable[[Any], Message]
) -> None:
    _, puppet = evaluating(world)
    before(puppet)
    with pytest.raises(ProtocolError):
        puppet.send(request_(puppet))


def test_nobody_else_may_come(world: World) -> None:
    edge, _ = opened(world)
    stranger = world.puppet(edge, "d7")
    with pytest.raises(ProtocolError, match="d7"):
        stranger.send(stranger.ready())
    edge.lose("d7", "never here")
    edge.lose("d0", "gone")
    lost = world.puppet(edge, "d0")
    with pytest.raises(ProtocolError, match="d0"):
        lost.send(lost.ready())


def test_nothing_is_answered_between_rounds(world: World) -> None:
    edge = world.edge()
    for _ in range(2):
        with pytest.raises(ProtocolError, match="no round open"):
            world.puppet(edge).send(Ready(0, 0, 1, 1))
        edge.lose("d0", "nothing to lose")
        edge.open(world.order("d0"))
        world.closed(edge)


def test_splits_that_the_model_has_not_are_refused(world: World) -> None:
    edge, _ = opened(world)
    for bottom, top in ((0, 1), (2, 2), (3, 1), (2**31, 0)):
        with pytest.raises(SplitError):
            edge.handle("d0", Ready(0, 0, bottom, top))

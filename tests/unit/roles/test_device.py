"""The device: what it asks, what it sends, and what it refuses to be answered."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from elsa.core.codec import Frame, Identity
from elsa.core.score import Tally
from elsa.errors import CodecError, ElsaError, ProtocolError
from elsa.roles.edge import Edge
from elsa.roles.trunk import PerDeviceTrunk
from elsa.wire.messages import (
    Accepted,
    Activations,
    EvaluationOrder,
    Gradients,
    LocalPlan,
    Message,
    Ready,
    RoundOrder,
    Score,
    Update,
)
from elsa.wire.serde import encode

World = Any
STEPS = 3


class Heard:
    """An edge that remembers what its device said, and may answer something else."""

    def __init__(self, edge: Edge, change: Callable[[Message], Message] = lambda it: it) -> None:
        self.edge, self.change = edge, change
        self.said: list[Message] = []

    def __call__(self, request: Message) -> Message:
        self.said.append(request)
        return self.change(self.edge.handle("d0", request))


def training(world: World, edge: Edge | None = None) -> Heard:
    edge = edge or world.edge()
    edge.open(RoundOrder(0, 1, STEPS, ("d0",), world.adapters))
    return Heard(edge)


def evaluating(world: World) -> Heard:
    edge = world.edge()
    edge.open(EvaluationOrder(7, ("d0",), world.adapters))
    return Heard(edge)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], v) for k, v in other.items())


def test_says_ready_then_two_requests_a_step_then_its_update(world: World) -> None:
    heard = training(world)
    world.play(world.device("d0", world.examples(10), cuts=(2, 1)).train(0, 0), heard)
    steps = [kind for _ in range(STEPS) for kind in (Activations, Gradients)]
    assert [type(message) for message in heard.said] == [Ready, *steps, Update]
    assert heard.said[0] == Ready(0, 0, 2, 1)
    assert [message.step for message in heard.said[1:-1]] == [0, 0, 1, 1, 2, 2]


def test_sends_tokens_alone_and_no_padding(world: World) -> None:
    heard = training(world)
    examples = world.examples(10)
    world.play(world.device("d0", examples).train(0, 0), heard)
    sent = [it.lengths for it in heard.said if isinstance(it, Activations)]
    assert sorted(length for lengths in sent for length in lengths) == sorted(
        len(ids) for ids in examples.input_ids
    )
    assert any(len(set(lengths)) > 1 for lengths in sent)
    shapes = [it.packet.shape for it in heard.said if isinstance(it, Activations | Gradients)]
    assert shapes == [(sum(lengths), world.hidden) for lengths in sent for _ in range(2)]


def test_update_holds_its_own_adapters_rows_and_the_mean_loss(world: World) -> None:
    heard, device = training(world), world.device("d0", world.examples(10))
    done = world.play(device.train(0, 0), heard)
    update = heard.said[-1]
    assert isinstance(update, Update)
    assert update.adapters.keys() == world.own_names((1, 1))
    assert not any(torch.equal(value, world.adapters[k]) for k, value in update.adapters.items())
    # Three batches of 4, 4 and 2: every row once.
    assert (update.rows, update.samples, device.position) == (10, 10, STEPS)
    assert (done.samples, done.loss) == (update.samples, update.loss)
    assert 0 < update.loss < 10


def test_mean_loss_counts_rows_not_batches(world: World) -> None:
    """Without learning, one pass over the rows has the loss of evaluating them."""
    examples = world.examples(10)
    still = replace(world.optimizer, learning_rate=0.0, weight_decay=0.0)
    device = world.device("d0", examples, held_out=examples, optimizer=still)
    done = world.play(device.train(0, 0), training(world, edge=world.edge(PerDeviceTrunk(still))))
    seen = world.play(device.evaluate(7), evaluating(world))
    assert done.loss == pytest.approx(seen.mean_loss, rel=1e-5)


def test_evaluation_counts_every_held_out_row_and_trains_nothing(world: World) -> None:
    held_out = world.examples(11, seed=3)
    device = world.device("d0", world.examples(4), held_out=held_out)
    heard = evaluating(world)
    got = world.play(device.evaluate(7), heard)
    assert got.items == 11
    assert isinstance(heard.said[-1], Score)
    assert heard.said[-1] == Score(7, 11, got.correct, got.mean_loss, 11, got.correct)
    assert [type(it) for it in heard.said] == [Ready, *[Activations] * math.ceil(11 / 3), Score]
    assert not any(it.training for it in heard.said if isinstance(it, Activations))
    assert (device.position, device.moments()) == (0, {})
    assert got == world.play(device.evaluate(7), evaluating(world))


def test_evaluation_is_that_of_the_model_row_by_row(world: World) -> None:
    held_out = world.examples(7, seed=3)
    device = world.device("d0", world.examples(4), held_out=held_out)
    got = world.play(device.evaluate(7), evaluating(world))
    segments, trunk = world.segments(world.split(1, 1)), world.trunk(world.split(1, 1))
    for part in (segments.bottom, trunk, segments.top):
        part.bind(world.adapters)
    correct, loss = 0, 0.0
    with torch.no_grad():
        for ids, label in zip(held_out.input_ids, held_out.labels, strict=True):
            tokens = torch.from_numpy(ids).long()[None]
            logits = segments.top(trunk(segments.bottom(tokens)))[0]
            correct += int(logits.argmax() == label)
            loss += float(logits.logsumexp(0) - logits[label])
    assert (got.items, got.correct) == (7, correct)
    assert got.loss == pytest.approx(loss, rel=1e-4)


def test_device_without_held_out_rows_scores_nothing(world: World) -> None:
    heard = evaluating(world)
    assert world.play(world.device("d0", world.examples(4)).evaluate(7), heard) == Tally()
    assert heard.said[-1] == Score(7, 0, 0, 0.0)


def test_device_without_training_rows_does_not_train(world: World) -> None:
    empty = world.examples(3).take([])
    tester = world.device("d0", empty, held_out=world.examples(3))
    with pytest.raises(ProtocolError, match="d0"):
        next(tester.train(0, 0))
    assert world.play(tester.evaluate(7), evaluating(world)).items == 3
    tester.restore({}, {}, 5)
    assert tester.position == 0


def said(world: World, seed: int) -> list[bytes]:
    heard = training(world)
    world.play(world.device("d0", world.examples(20), seed=seed).train(0, 0), heard)
    return [encode(message) for message in heard.said]


def test_everything_it_says_depends_on_its_seed_alone(world: World) -> None:
    first = said(world, seed=1)
    torch.manual_seed(99)
    np.random.default_rng(99)
    assert said(world, seed=1) == first
    assert said(world, seed=2) != first


def test_restored_device_goes_on_as_the_first_would(world: World) -> None:
    examples = world.examples(10)
    first, second, fresh = (world.device("d0", examples) for _ in range(3))
    world.play(first.train(0, 0), training(world))
    kept = {name: value.clone() for name, value in first.moments().items()}
    second.restore(kept, {}, first.position)
    fresh.restore({}, {}, first.position)
    said = []
    for device in (first, second, fresh):
        heard = training(world)
        world.play(device.train(0, 0), heard)
        said.append([encode(message) for message in heard.said])
    assert said[0] == said[1]
    assert said[0] != said[2]
    assert (first.position, second.position) == (2 * STEPS, 2 * STEPS)
    assert equal(first.moments(), second.moments())


@pytest.mark.parametrize("keep", [True, False])
def test_moments_are_kept_only_if_asked_for(world: World, keep: bool) -> None:
    optimizer = replace(world.optimizer, keep_moments=keep)
    device = world.device("d0", world.examples(10), optimizer=optimizer)
    world.play(device.train(0, 0), training(world))
    names = {name.partition("/")[2] for name in device.moments()}
    assert names == (world.own_names((1, 1)) if keep else set())


def test_lost_device_keeps_the_moments_it_had(world: World) -> None:
    """What it learned since the last average is gone, and so must be the moments of it."""
    device = world.device("d0", world.examples(10))
    world.play(device.train(0, 0), training(world))
    before = {name: value.clone() for name, value in device.moments().items()}
    heard = training(world)
    exchange = device.train(0, 0)
    request = next(exchange)
    for _ in range(3):
        request = exchange.send(heard(request))
    exchange.close()
    assert equal(device.moments(), before)


def odd_packet(message: Message, values: Callable[[Tensor], Tensor]) -> Message:
    assert isinstance(message, Activations | Gradients)
    frame = Frame([message.packet.shape[0]])
    decoded = Identity().decode(message.packet, frame)
    return replace(message, packet=Identity().encode(values(decoded), frame))


def only(kind: type, change: Callable[[Any], Message]) -> Callable[[Message], Message]:
    return lambda message: change(message) if isinstance(message, kind) else message


ODD_ANSWERS: dict[str, tuple[Callable[[Message], Message], type[ElsaError]]] = {
    "plan of another round": (only(LocalPlan, lambda it: replace(it, round=1)), ProtocolError),
    "plan of another edge round": (
        only(LocalPlan, lambda it: replace(it, edge_round=1)),
        ProtocolError,
    ),
    "no plan": (only(LocalPlan, lambda it: Accepted()), ProtocolError),
    "hidden states of another step": (
        only(Activations, lambda it: replace(it, step=it.step + 1)),
        ProtocolError,
    ),
    "gradients of another step": (
        only(Gradients, lambda it: replace(it, step=it.step + 1)),
        ProtocolError,
    ),
    "gradients for hidden states": (
        only(Activations, lambda it: Gradients(it.step, it.packet)),
        ProtocolError,
    ),
    "hidden states that are NaN": (
        only(Activations, lambda it: odd_packet(it, lambda values: values * torch.nan)),
        CodecError,
    ),
    "gradients that are infinite": (
        only(Gradients, lambda it: odd_packet(it, lambda values: values + torch.inf)),
        CodecError,
    ),
    "fewer tokens": (
        only(Activations, lambda it: odd_packet(it, lambda values: values[1:])),
        CodecError,
    ),
    "narrower gradients": (
        only(Gradients, lambda it: odd_packet(it, lambda values: values[:, 1:])),
        CodecError,
    ),
    "whole numbers": (
        only(Activations, lambda it: odd_packet(it, lambda values: values.long())),
        CodecError,
    ),
    "another codec": (
        only(Activations, lambda it: replace(it, packet=replace(it.packet, codec="other"))),
        CodecError,
    ),
    "a plan for its update": (
        only(Accepted, lambda it: LocalPlan(0, 0, 1, 0, {})),
        ProtocolError,
    ),
}


@pytest.mark.parametrize(("change", "error"), ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_odd_answer_ends_its_round(
    world: World, change: Callable[[Message], Message], error: type[ElsaError]
) -> None:
    heard = training(world)
    heard.change = change
    device = world.device("d0", world.examples(10))
    with pytest.raises(error):
        world.play(device.train(0, 0), heard)
    # It can take part in the next one.
    assert world.play(device.train(0, 0), training(world)).samples > 0

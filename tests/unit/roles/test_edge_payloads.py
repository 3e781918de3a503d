"""Payloads that an edge server cannot use are refused, and never averaged."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from elsa.core.codec import Frame, Identity
from elsa.errors import AdapterError, CodecError, ElsaError, ProtocolError
from elsa.roles.edge import Edge
from elsa.roles.trunk import PerDeviceTrunk, SharedTrunk
from elsa.wire.messages import Activations, Gradients, Update

World = Any
Puppet = Any
T, D, LONGEST = 9, 8, 12
"""Tokens of a puppet's batch, hidden size, and the longest text allowed."""


def opened(world: World) -> tuple[Edge, Any]:
    edge = world.edge()
    edge.open(world.order())
    return edge, world.puppet(edge)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], v) for k, v in other.items())


BAD_STATES: dict[str, tuple[Callable[[Puppet], Activations], type[ElsaError]]] = {
    "NaN": (lambda it: it.states(torch.full((T, D), torch.nan)), CodecError),
    "infinity": (lambda it: it.states(torch.full((T, D), torch.inf)), CodecError),
    "hidden size": (lambda it: it.states(torch.zeros(T, D + 1)), CodecError),
    "tokens": (lambda it: it.states(torch.zeros(T - 1, D)), CodecError),
    "dimensions": (lambda it: it.states(torch.zeros(1, T, D)), CodecError),
    "integers": (lambda it: it.states(torch.zeros(T, D, dtype=torch.int64)), CodecError),
    "float64": (lambda it: it.states(torch.zeros(T, D, dtype=torch.float64)), CodecError),
    "codec": (lambda it: it.states(torch.zeros(T, D), codec="other"), CodecError),
    "dtype": (lambda it: it.states(torch.zeros(T, D), dtype="complex64"), CodecError),
    "payload": (lambda it: it.states(torch.zeros(T, D), payload=b"short"), CodecError),
    "too long": (
        lambda it: it.states(torch.zeros(LONGEST + 1, D), (LONGEST + 1,)),
        ProtocolError,
    ),
    "empty text": (lambda it: it.states(torch.zeros(3, D), (3, 0)), ProtocolError),
    "no texts": (lambda it: it.states(torch.zeros(0, D), ()), ProtocolError),
}


@pytest.mark.parametrize(("bad", "error"), BAD_STATES.values(), ids=BAD_STATES)
def test_bad_hidden_states_are_refused(
    world: World, bad: Callable[[Puppet], Activations], error: type[ElsaError]
) -> None:
    _, puppet = opened(world)
    puppet.send(puppet.ready())
    with pytest.raises(error):
        puppet.send(bad(puppet))


@pytest.mark.parametrize(
    ("reach", "marks"), [("some", b""), ("all", b"\xff\x01"), ("last", b"\xff")]
)
def test_tokens_are_marked_where_some_are_wanted_and_nowhere_else(
    world: World, reach: str, marks: bytes
) -> None:
    _, puppet = opened(world)
    puppet.send(replace(puppet.ready(), reach=reach))
    with pytest.raises(ProtocolError, match=f"it asked for '{reach}'"):
        puppet.send(replace(puppet.forward(), marks=marks))


def test_longest_sequence_is_taken(world: World) -> None:
    _, puppet = opened(world)
    puppet.send(puppet.ready())
    assert puppet.send(puppet.states(torch.ones(LONGEST, D), (LONGEST,)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64], ids=str)
def test_only_what_is_wrong_is_refused(world: World, dtype: torch.dtype) -> None:
    """The cases above differ from this one in one thing each."""
    _, puppet = opened(world)
    puppet.send(puppet.ready())
    good = puppet.states(torch.ones(T, D, dtype=dtype))
    if dtype == torch.float32:
        assert puppet.send(good)
    else:
        with pytest.raises(CodecError, match=str(dtype).removeprefix("torch.")):
            puppet.send(good)


@pytest.mark.parametrize("name", ["NaN", "infinity", "hidden size", "tokens", "integers", "codec"])
def test_bad_gradients_are_refused(world: World, name: str) -> None:
    _, puppet = opened(world)
    puppet.send(puppet.ready())
    puppet.send(puppet.forward())
    with pytest.raises(CodecError):
        puppet.send(Gradients(0, BAD_STATES[name][0](puppet).packet))


@pytest.mark.parametrize("kind", [PerDeviceTrunk, SharedTrunk])
def test_gradients_that_overflow_are_refused(world: World, kind: type) -> None:
    """A finite gradient whose square is not would leave NaN or a dead trunk to all."""
    edge = world.edge(kind(world.optimizer))
    edge.open(world.order("d0"))
    puppet = world.puppet(edge)
    puppet.send(puppet.ready())
    puppet.send(puppet.forward())
    huge = 3e37 * torch.randn(T, D, generator=torch.Generator().manual_seed(0))
    with pytest.raises(CodecError, match="overflow"):
        puppet.send(Gradients(0, Identity().encode(huge, Frame(world.lengths))))


BAD_UPDATES: dict[str, tuple[Callable[[Update], Update], type[ElsaError]]] = {
    "missing name": (
        lambda it: replace(it, adapters=dict(list(it.adapters.items())[1:])),
        AdapterError,
    ),
    "extra name": (
        lambda it: replace(it, adapters={**it.adapters, "extra": torch.zeros(1)}),
        AdapterError,
    ),
    "shape": (lambda it: with_first(it, lambda value: value.flatten()), AdapterError),
    "NaN": (lambda it: with_first(it, lambda value: value * torch.nan), AdapterError),
    "no rows": (lambda it: replace(it, rows=0), AdapterError),
    "round": (lambda it: replace(it, round=1), ProtocolError),
    "edge round": (lambda it: replace(it, edge_round=1), ProtocolError),
}


def with_first(update: Update, change: Callable[[Tensor], Tensor]) -> Update:
    name = next(iter(update.adapters))
    return replace(update, adapters={**update.adapters, name: change(update.adapters[name])})


@pytest.mark.parametrize(("change", "error"), BAD_UPDATES.values(), ids=BAD_UPDATES)
def test_bad_updates_are_refused_and_not_averaged(
    world: World, change: Callable[[Update], Update], error: type[ElsaError]
) -> None:
    edge = world.edge()
    edge.open(world.order("d0", "d1"))
    bad, good = world.puppet(edge, "d1"), world.puppet(edge, "d0")
    bad.send(bad.ready())
    for step in range(world.steps):
        bad.step(step)
    with pytest.raises(error):
        bad.send(change(bad.update()))
    edge.lose("d1", "refused")
    good.train()
    update = world.closed(edge)
    assert update.weight == 1.0
    assert equal(update.adapters, world.alone("d0").adapters)

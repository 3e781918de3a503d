"""Where nothing learns below the top: what a device keeps, asks for, and never sends."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elsa.core.codec import HopCodecs, Identity
from elsa.core.temporal import Temporal
from elsa.core.waterfill import WaterFill
from elsa.errors import ProtocolError
from elsa.roles.device import Device
from elsa.roles.edge import Edge
from elsa.roles.kept import Kept
from elsa.wire.messages import Activations, Gradients, Message, Ready, Resend, Update

World = Any
HIDDEN = 2
ASKED = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True), max_size=8)


def states_of(row: int) -> torch.Tensor:
    """Row n has 1 + n % 3 tokens, all of value n."""
    return torch.full((1 + row % 3, HIDDEN), float(row))


def ask(kept: Kept, rows: list[int]) -> tuple[torch.Tensor, list[int]]:
    """The states of a batch, and the rows that somebody had to be asked for."""
    missing = [rows[place] for place in kept.missing(rows)]
    sizes = [len(states_of(row)) for row in missing]
    given_ = torch.cat([states_of(row) for row in missing]) if missing else torch.empty(0, HIDDEN)
    return kept.take(rows, kept.put(missing, sizes, given_)), missing


@given(ASKED, st.integers(0, 120))
def test_whatever_is_kept_the_states_are_those_of_the_rows(
    batches: list[list[int]], capacity: int
) -> None:
    kept, seen = Kept(capacity), set[int]()
    for rows in batches:
        found, missing = ask(kept, rows)
        assert torch.equal(found, torch.cat([states_of(row) for row in rows]))
        assert set(rows) - set(missing) <= seen
        seen |= set(rows)
        assert kept.used <= capacity
        assert kept.used == sum(
            states_of(row).numel() * 4 for row in range(10) if not kept.missing([row])
        )


@given(ASKED, st.integers(0, 120))
def test_what_is_restored_is_as_if_nothing_had_happened(
    batches: list[list[int]], capacity: int
) -> None:
    kept, other = Kept(capacity), Kept(capacity)
    for rows in batches:
        ask(kept, rows)
    other.restore(kept.state())
    assert other.used == kept.used
    for rows in batches:
        assert ask(other, rows)[1] == ask(kept, rows)[1]


def heard(world: World, edge: Edge, device: Device, round_: int = 0) -> list[Message]:
    edge.open(world.order("d0"))
    said: list[Message] = []

    def answer(request: Message) -> Message:
        said.append(request)
        return edge.handle("d0", request)

    world.play(device.train(0, 0), answer)
    return said


def test_a_text_is_asked_for_once_and_no_gradient_is_sent(still: World) -> None:
    edge, device = still.edge(), still.device("d0", still.examples(6))
    # Two steps of four and two rows are an epoch.
    assert [type(it) for it in heard(still, edge, device)] == [
        Ready,
        Activations,
        Activations,
        Update,
    ]
    assert [type(it) for it in heard(still, edge, device)] == [Ready, Update]


def test_what_there_is_no_room_for_is_asked_for_alone(still: World) -> None:
    examples = still.examples(8)
    edge, device = still.edge(), still.device("d0", examples)
    device._kept = Kept(sum(len(ids) for ids in examples.input_ids[:4]) * 8 * 4)
    first = [it for it in heard(still, edge, device) if isinstance(it, Activations)]
    again = [it for it in heard(still, edge, device) if isinstance(it, Activations)]
    assert sum(len(it.lengths) for it in first) == 8
    assert 0 < sum(len(it.lengths) for it in again) < 8
    assert [it.step for it in again] == list(range(len(again)))


def test_other_segments_make_what_is_kept_worthless(still: World) -> None:
    device = still.device("d0", still.examples(8))
    heard(still, still.edge(), device)
    device.refit(device.segments, {})
    assert any(isinstance(it, Activations) for it in heard(still, still.edge(), device))


def test_gradients_are_refused_where_nothing_learns_from_them(still: World) -> None:
    edge = still.edge()
    edge.open(still.order())
    puppet = still.puppet(edge)
    puppet.send(Ready(0, 0, 1, 1, frozen=True))
    puppet.send(puppet.forward())
    with pytest.raises(ProtocolError, match="out of turn"):
        puppet.send(Gradients(0, puppet.values(50)))


def test_a_device_that_forgot_is_told_again_in_full(still: World) -> None:
    def codecs() -> HopCodecs:
        states = Temporal(WaterFill(0.2), 10**6), Temporal(WaterFill(0.2), 10**6)
        return HopCodecs(*states, Identity(), Identity())

    examples, edge = still.examples(8), still.edge(codecs=codecs)
    heard(still, edge, still.device("d0", examples, codecs=codecs()))
    said = heard(still, edge, still.device("d0", examples, codecs=codecs()))
    assert [type(it) for it in said] == [Ready, *[Activations, Resend] * 2, Update]

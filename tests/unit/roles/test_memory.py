"""An end that lost what it remembered of a device's samples is told everything again."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from elsa.core.codec import EXACT, HopCodecs, Identity
from elsa.core.temporal import Temporal
from elsa.core.waterfill import WaterFill
from elsa.errors import AdapterError, ProtocolError
from elsa.roles.device import Device
from elsa.roles.edge import Edge
from elsa.roles.parcel import unwrap, wrap
from elsa.wire.messages import Activations, EvaluationOrder, Message, Resend

World = Any


def codecs() -> HopCodecs:
    states = Temporal(WaterFill(0.2), 10**6), Temporal(WaterFill(0.2), 10**6)
    return HopCodecs(*states, Identity(), Identity())


def heard(world: World, edge: Edge, device: Device) -> list[tuple[Message, Message]]:
    """What is asked and answered in an edge round that ends well."""
    edge.open(world.order("d0"))
    said: list[tuple[Message, Message]] = []

    def answer(request: Message) -> Message:
        said.append((request, edge.handle("d0", request)))
        return said[-1][1]

    assert world.play(device.train(0, 0), answer).samples == 8
    return said


def resent(said: list[tuple[Message, Message]]) -> tuple[int, int]:
    """How often the edge, and the device, had to ask again."""
    by_edge = sum(isinstance(answer, Resend) for _, answer in said)
    return by_edge, sum(isinstance(request, Resend) for request, _ in said)


def states(said: list[tuple[Message, Message]]) -> int:
    """Bytes of hidden states."""
    both = [message for pair in said for message in pair]
    return sum(len(it.packet.payload) for it in both if isinstance(it, Activations))


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("forgets", ["nobody", "edge", "device"])
def test_who_forgot_is_told_again_in_full(world: World, forgets: str, in_flight: int) -> None:
    examples = world.examples(8)  # two steps of four rows are an epoch
    how = {"in_flight": in_flight}
    edge = world.edge(codecs=codecs, **how)
    device = world.device("d0", examples, codecs=codecs(), **how)
    first = heard(world, edge, device)
    assert resent(first) == (0, 0)
    if forgets == "edge":
        edge = world.edge(codecs=codecs, **how)
    elif forgets == "device":
        device = world.device("d0", examples, codecs=codecs(), **how)
    second = heard(world, edge, device)
    # A device that forgot sends its own in full unasked, but cannot read what the edge sends.
    all_ = 2 * in_flight  # of each of two steps, each micro-batch
    assert resent(second) == {"nobody": (0, 0), "edge": (all_, 0), "device": (0, all_)}[forgets]
    if forgets == "nobody":
        assert states(second) < states(first) / 2
    assert resent(heard(world, edge, device)) == (0, 0)


def test_edge_remembers_each_device_by_itself(world: World) -> None:
    examples = world.examples(8)
    edge = world.edge(codecs=codecs)
    for _ in range(2):
        edge.open(world.order("d0", "d1"))
        for name in ("d0", "d1"):
            device = world.device(name, examples, seed=int(name[1:]), codecs=codecs())
            world.play(device.train(0, 0), lambda request, name=name: edge.handle(name, request))
    memory = edge.memory()
    assert {key.split("/")[0] for key in memory} == {"d0", "d1"}
    again = world.edge(codecs=codecs)
    again.restore(edge.moments(), memory)
    assert all(torch.equal(value, memory[key]) for key, value in again.memory().items())
    assert again.memory().keys() == memory.keys()


def test_evaluation_is_never_remembered(world: World) -> None:
    edge = world.edge(codecs=codecs)
    tester = world.device("d0", world.examples(0), held_out=world.examples(5), codecs=codecs())
    edge.open(EvaluationOrder(0, ("d0",), world.adapters))
    said: list[Message] = []

    def answer(request: Message) -> Message:
        said.append(request)
        return edge.handle("d0", request)

    assert world.play(tester.evaluate(0), answer).items == 5
    sent = [it for it in said if isinstance(it, Activations)]
    assert sent
    assert {it.numbers for it in sent} == {()}
    for memory in (tester.memory(), edge.memory()):
        held = [len(value) for key, value in memory.items() if key.endswith("samples")]
        assert held
        assert not any(held)


def test_nothing_is_sent_again_that_is_not_due(world: World) -> None:
    edge = world.edge(codecs=codecs)
    edge.open(world.order("d0"))
    puppet = world.puppet(edge)
    puppet.send(puppet.ready())
    with pytest.raises(ProtocolError, match="nothing of step 0 to send again"):
        puppet.send(Resend(0))


def test_numbers_are_sent_only_where_a_codec_remembers(world: World) -> None:
    edge, device = world.edge(), world.device("d0", world.examples(8))
    said = [request for request, _ in heard(world, edge, device)]
    assert {it.numbers for it in said if isinstance(it, Activations)} == {()}
    assert not replace(EXACT).remembering


def test_adapters_travel_in_half_and_come_back_in_float32() -> None:
    adapters = {"a": torch.randn(3, 4), "b": torch.randn(2)}
    sent = wrap(adapters, "bfloat16")
    assert {value.dtype for value in sent.values()} == {torch.bfloat16}
    for name, value in unwrap(sent).items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, adapters[name], rtol=2**-8, atol=0)
    exact = unwrap(wrap(adapters, "float32"))
    assert all(torch.equal(exact[name], adapters[name]) for name in "ab")
    with pytest.raises(AdapterError, match=r"a: came as torch\.int64"):
        unwrap({"a": torch.ones(2, dtype=torch.int64)})

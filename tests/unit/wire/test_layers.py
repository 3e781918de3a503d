"""Layers: they see every frame in order, and faults hit the frame they name and no other."""

from collections.abc import Callable

import pytest

from elsa.core.codec import Packet
from elsa.errors import FrameError, WireError
from elsa.wire.inprocess import InProcess
from elsa.wire.layers import Effect, Fault, Observe, Tap, corrupt, delay, drop, truncate
from elsa.wire.messages import (
    Accepted,
    Activations,
    EdgeUpdate,
    LocalPlan,
    Message,
    Ready,
    RoundOrder,
)
from elsa.wire.serde import decode, encode
from elsa.wire.transport import Direction, Layer, Link, Passage

LINK = Link("device_edge", "device-0", "edge-0")
READY = Ready(3, 0, 1, 1)


def states(step: int, training: bool = True) -> Activations:
    return Activations(step, training, (1,), Packet("any", "float32", (1, 1), bytes(4)))


def echo(peer: str, request: Message) -> Message:
    return LocalPlan(0, 0, 1, 0, {}) if isinstance(request, Ready) else request


def link(*layers: Layer, below: str = "device-0") -> InProcess:
    return InProcess(echo, Link("device_edge", below, "edge-0"), layers)


def test_tap_sees_both_ways_in_order_and_the_very_bytes() -> None:
    tap = Tap()
    edge = link(tap)
    edge.call(READY)
    edge.call(states(0))
    assert [(p.direction, type(p.message).__name__) for p in tap.frames] == [
        ("up", "Ready"),
        ("down", "LocalPlan"),
        ("up", "Activations"),
        ("down", "Activations"),
    ]
    assert all(decode(p.data) == p.message and p.link == LINK for p in tap.frames)


def test_towards_an_edge_the_cloud_asks_downwards() -> None:
    tap = Tap()
    answer = EdgeUpdate(0, {}, 0.0, ())
    names = []

    def handler(peer: str, request: Message) -> Message:
        names.append(peer)
        return answer

    InProcess(handler, Link("edge_cloud", "edge-0", "cloud"), [tap]).call(
        RoundOrder(0, 1, 1, (), {})
    )
    assert [p.direction for p in tap.frames] == ["down", "up"]
    assert names == ["cloud"]


def test_layers_nest_the_first_nearest_to_the_caller() -> None:
    seen: list[str] = []

    def named(name: str) -> Callable[[Passage], bytes]:
        def layer(passage: Passage) -> bytes:
            seen.append(f"{name} {passage.direction}")
            return passage.data

        return layer

    link(named("outer"), named("inner")).call(READY)
    assert seen == ["outer up", "inner up", "inner down", "outer down"]


def test_observer_is_told_of_requests_and_of_their_answers_as_they_pass() -> None:
    told: list[tuple[str, Message, int]] = []

    def observe() -> Observe:
        return Observe(
            lambda request, size: told.append(("asked", request, size)),
            lambda request, size: told.append(("answered", request, size)),
        )

    order, answer = RoundOrder(0, 1, 1, ("device-0",), {}), EdgeUpdate(0, {}, 0.0, ())
    plan = len(encode(LocalPlan(0, 0, 1, 0, {})))
    edge = link(observe())
    edge.send(READY)
    edge.send(states(0))
    edge.receive()
    edge.receive()
    InProcess(lambda _, __: answer, Link("edge_cloud", "edge-0", "cloud"), [observe()]).call(order)
    size = len(encode(states(0)))
    assert told == [
        ("asked", READY, len(encode(READY))),
        ("asked", states(0), size),
        ("answered", READY, plan),
        ("answered", states(0), size),
        ("asked", order, len(encode(order))),
        ("answered", order, len(encode(answer))),
    ]


def test_observer_is_told_of_no_answer_to_a_lost_request() -> None:
    told: list[Message] = []
    observe = Observe(lambda *_: None, lambda request, _: told.append(request))
    edge = link(observe, Fault("device-0", 0, drop))
    with pytest.raises(WireError):
        edge.call(READY)
    edge.call(states(0))
    assert told == [states(0)]


def test_fault_hits_the_nth_call_of_its_peer_once() -> None:
    fault = Fault("device-1", 1, drop)
    one, other = link(fault, below="device-1"), link(fault)
    for _ in range(3):
        other.call(READY)
    one.call(READY)
    with pytest.raises(WireError, match="link broke"):
        one.call(READY)
    one.call(READY)


def test_fault_hits_the_training_step_it_names() -> None:
    edge = link(Fault("device-0", (3, 1), drop))
    for round_ in (2, 3):
        edge.call(Ready(round_, 0, 1, 1))
        edge.call(states(0))
        edge.call(states(1, training=False))
        if round_ == 2:
            edge.call(states(1))
    with pytest.raises(WireError):
        edge.call(states(1))
    edge.call(states(1))


def test_request_lost_upwards_never_reaches_the_server_but_a_lost_answer_did() -> None:
    reached: list[str] = []

    def handler(peer: str, request: Message) -> Message:
        reached.append(peer)
        return Accepted()

    with pytest.raises(WireError):
        InProcess(handler, LINK, [Fault("device-0", 0, drop, "up")]).call(READY)
    assert reached == []
    with pytest.raises(WireError):
        InProcess(handler, LINK, [Fault("device-0", 0, drop, "down")]).call(READY)
    assert reached == ["device-0"]


@pytest.mark.parametrize("effect", [corrupt(), truncate(3)])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_broken_bytes_are_a_frame_error_at_the_caller(effect: Effect, direction: Direction) -> None:
    edge = link(Fault("device-0", 0, effect, direction))
    with pytest.raises(FrameError):
        edge.call(READY)
    assert isinstance(edge.call(READY), LocalPlan)


def test_corruption_flips_one_byte_only() -> None:
    assert corrupt(1)(b"\x00\x01\x02") == b"\x00\xfe\x02"


def test_delay_waits_and_changes_nothing() -> None:
    waited: list[float] = []
    edge = link(Fault("device-0", 0, delay(2.5, waited.append)))
    assert edge.call(READY) == LocalPlan(0, 0, 1, 0, {})
    assert waited == [2.5]

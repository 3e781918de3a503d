"""Whatever a caller sends over a real connection ends its own session only; the server goes on.

Frames are mutated from good ones, sent out of order, cut short, lengthened, or made of noise.
"""

import logging
import queue
from collections.abc import Iterator
from typing import Any

import grpc
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elsa.core.codec import Frame, Identity
from elsa.errors import WireError
from elsa.wire.messages import (
    Accepted,
    Activations,
    Gradients,
    Message,
    Next,
    Ready,
    Refusal,
    Register,
    Resend,
    Update,
)
from elsa.wire.rpc.client import Rpc
from elsa.wire.rpc.options import METHOD, NUMBER, PEER, SERVICE, channel_options
from elsa.wire.rpc.security import Loopback
from elsa.wire.rpc.server import RpcServer
from elsa.wire.serde import decode, encode
from elsa.wire.transport import Link

LIMIT = 2**16
FRAMES = 60
"""Frames of one example; with the examples below, some thousands in all."""
STATES = Identity().encode(torch.randn(3, 4), Frame((2, 1)))
GOOD = [
    encode(message)
    for message in (
        Register({"model.precision": "float32"}),
        Next(),
        Ready(0, 0, 1, 1),
        Activations(0, True, (2, 1), STATES, (0, 1)),
        Gradients(0, STATES),
        Resend(0),
        Update(0, 0, {"head": torch.zeros(2, 3)}, 5, 5, 0.5),
    )
]


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A good frame with some bytes changed, dropped or put in; or noise."""
    data = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.integers(0, 3)):
            case 0:
                data[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del data[place : place + draw(st.integers(1, 9))]
            case 2:
                data[place:place] = draw(st.binary(max_size=9))
            case _:
                data = bytearray(draw(st.binary(max_size=200)))
    return bytes(data)


class Raw:
    """A caller without manners: it sends any bytes, and begins anew when it is thrown out."""

    def __init__(self, address: str, name: str) -> None:
        self._channel = grpc.insecure_channel(address, channel_options(2 * LIMIT))
        self._name = name
        self._requests: queue.SimpleQueue[bytes | None] | None = None
        self._answers: Any = None
        self.sessions = 0

    def ask(self, data: bytes) -> bytes | None:
        """The answer, or None if the stream ended instead."""
        if self._requests is None:
            self._requests = queue.SimpleQueue()
            method = self._channel.stream_stream(f"/{SERVICE}/{METHOD}")
            metadata = ((NUMBER, "0"), (PEER, self._name))
            self._answers = method(iter(self._requests.get, None), metadata=metadata)
            self.sessions += 1
        self._requests.put(data)
        try:
            answer: bytes = next(self._answers)
        except (grpc.RpcError, StopIteration):
            self._requests.put(None)
            self._requests = None
            return None
        return answer

    def close(self) -> None:
        if self._requests is not None:
            self._requests.put(None)
        self._channel.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RpcServer]:
    """A server whose handler knows nothing but Accepted, and refuses the rest as a role would."""

    def handler(peer: str, request: Message) -> Message:
        return request if isinstance(request, Accepted | Next) else Refusal("ProtocolError", "no")

    serving = RpcServer(
        handler, "127.0.0.1:0", Loopback("edge-0"), callers=["bad", "good"], limit=LIMIT
    )
    with serving:
        yield serving


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(frames(), min_size=FRAMES, max_size=FRAMES))
def test_malformed_frames_end_their_sender_s_session_alone(
    server: RpcServer, sent: list[bytes]
) -> None:
    logging.disable(logging.WARNING)
    raw = Raw(server.address, "bad")
    good = Rpc(server.address, Link("device_edge", "good", "edge-0"), Loopback("good"))
    try:
        before = psutil.Process().memory_info().rss
        for data in sent:
            answer = raw.ask(data)
            if answer is None:
                continue  # its session had been ended for the frame before
            try:
                meant = decode(data)
            except WireError:
                assert isinstance(decode(answer), Refusal)
            else:
                expected = (Accepted, Next) if isinstance(meant, Accepted | Next) else (Refusal,)
                assert isinstance(decode(answer), expected)
        assert good.call(Accepted()) == Accepted()
        assert psutil.Process().memory_info().rss - before < 50e6
    finally:
        logging.disable(logging.NOTSET)
        raw.close()
        good.close()


@pytest.mark.parametrize("size", [LIMIT + 1, LIMIT + 2**17, 2**22])
def test_frame_over_the_limit_is_refused(
    server: RpcServer, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    raw = Raw(server.address, "bad")
    with caplog.at_level(logging.INFO):
        answer = raw.ask(bytes(size))
        if answer is not None:  # a little over: taken in, to be able to say so
            refusal = decode(answer)
            assert isinstance(refusal, Refusal)
            assert f"over this server's limit of {LIMIT}" in refusal.reason
        assert raw.ask(bytes(1)) is None or size > LIMIT + 2**16
    good = Rpc(server.address, Link("device_edge", "good", "edge-0"), Loopback("good"))
    assert good.call(Accepted()) == Accepted()
    good.close()
    raw.close()
    assert "bad" in caplog.text


def test_caller_that_never_reads_its_answers_costs_one_request_and_one_answer() -> None:
    """Everything it sends more stays with it: no queue of the server grows."""
    computed: list[str] = []

    def handler(peer: str, request: Message) -> Message:
        computed.append(peer)
        return Update(0, 0, {"large": torch.zeros(2**22)}, 1, 1, 0.0)  # 16 MiB: more than a window

    with RpcServer(handler, "127.0.0.1:0", Loopback("edge-0"), callers=["bad", "good"]) as serving:
        channel = grpc.insecure_channel(serving.address, channel_options(2**26))
        flood: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        method = channel.stream_stream(f"/{SERVICE}/{METHOD}")
        answers = method(iter(flood.get, None), metadata=((NUMBER, "0"), (PEER, "bad")))
        for _ in range(50):
            flood.put(encode(Next()))
        good = Rpc(serving.address, Link("device_edge", "good", "edge-0"), Loopback("good"))
        for _ in range(3):
            assert isinstance(good.call(Next()), Update)
        assert computed.count("bad") <= 3
        answers.cancel()
        flood.put(None)
        good.close()
        channel.close()

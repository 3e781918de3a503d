"""One verb: ask a peer and get its answer; and the one place where layers see what passes.

    caller                                                        server
    send    -> encode -> layers -> say  ~~~~ bytes ~~~~> serve -> handler
    receive <- decode <- layers <- hear <~~~ bytes ~~~~~ serve <-

To `call` is to send and to receive; who sends ahead receives the answers in the order of the
requests. A transport is a `Caller` with its own `say` and `hear`: in process a function call, over
a network a stream. A server of any transport answers through `serve`, which turns errors into
refusals; `Caller` turns refusals back into the same errors.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from elsa import errors
from elsa.errors import ElsaError, FrameError, Interrupted, WireError
from elsa.wire.checks import plain
from elsa.wire.messages import Message, Refusal
from elsa.wire.serde import decode, encode

Tier = Literal["device_edge", "edge_cloud"]
Direction = Literal["up", "down"]
"""Up is towards the cloud."""

Handler = Callable[[str, Message], Message]
"""A server: from the caller's name and its request to the answer."""

Say = Callable[[bytes], None]
"""Brings a request's frame on its way to the server."""

Hear = Callable[[], bytes]
"""Waits for the frame that answers the earliest request without an answer. Where it fails, no
request has an answer to come."""

_log = logging.getLogger(__name__)
_RAISABLE: dict[str, type[ElsaError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ElsaError) and kind is not Interrupted
}


@dataclass(frozen=True)
class Link:
    """A link between two parties.

    Attributes:
        tier: which kind of link.
        below: name of its lower end: the device, or the edge server on the way to the cloud.
        above: name of its upper end: the edge server, or the cloud.
    """

    tier: Tier
    below: str
    above: str

    @property
    def caller(self) -> str:
        """Who asks: the device of its edge server, the cloud of an edge server."""
        return self.below if self.tier == "device_edge" else self.above

    def direction(self, *, request: bool) -> Direction:
        """The way that a request or an answer goes."""
        return "up" if request == (self.caller == self.below) else "down"


@dataclass(frozen=True)
class Passage:
    """A frame on its way over a link.

    Attributes:
        link: which.
        direction: up or down.
        message: what its sender meant.
        data: its bytes.
        request: what was asked: the message itself, or the one that it answers.
    """

    link: Link
    direction: Direction
    message: Message
    data: bytes
    request: Message | None = None


Layer = Callable[[Passage], bytes]
"""An effect on every frame of a link: counting, recording, breaking. It returns the bytes to pass
on, the same where nothing changes, or raises WireError."""


class Transport(Protocol):
    """A link as its caller sees it."""

    def call(self, request: Message) -> Message:
        """Ask, and wait for the answer; answers to what was sent ahead are dropped.

        Raises:
            FrameError: the request may not be sent, or the answer is no frame.
            ElsaError: of the very class that the server refused the request with.
        """
        ...

    def send(self, request: Message) -> None:
        """Ask ahead, and do not wait; raises FrameError as `call`."""
        ...

    def receive(self) -> Message:
        """The answer to the earliest request sent ahead that has none yet; raises as `call`."""
        ...


class Caller:
    """The caller's end: `say` and `hear` behind layers, the first nearest to the caller."""

    def __init__(self, say: Say, hear: Hear, link: Link, layers: Sequence[Layer] = ()) -> None:
        self._say = say
        self._hear = hear
        self._link = link
        self._layers = tuple(layers)
        self._asked: deque[Message] = deque()

    def call(self, request: Message) -> Message:
        """Ask, and wait for the answer; see `Transport`."""
        while self._asked:  # of work that was given up
            self._answer()
        self.send(request)
        return self.receive()

    def send(self, request: Message) -> None:
        """Ask ahead; see `Transport`."""
        self._say(self._pass(self._layers, request, request, encode(request)))
        self._asked.append(request)

    def receive(self) -> Message:
        """An answer; see `Transport`."""
        reply = self._answer()
        if isinstance(reply, Refusal):
            raise error_of(reply)
        return reply

    def _answer(self) -> Message:
        try:
            answer = self._hear()
        except BaseException:
            self._asked.clear()
            raise
        request = self._asked.popleft()
        reply = decode(answer)
        received = self._pass(self._layers[::-1], request, reply, answer)
        return reply if received is answer else decode(received)

    def _pass(
        self, layers: Sequence[Layer], request: Message, message: Message, data: bytes
    ) -> bytes:
        direction = self._link.direction(request=message is request)
        for layer in layers:
            data = layer(Passage(self._link, direction, message, data, request))
        return data


def at_once(exchange: Callable[[bytes], bytes]) -> tuple[Say, Hear]:
    """Of a link that answers every request before the next can be sent."""
    answers: deque[bytes] = deque()
    return lambda data: answers.append(exchange(data)), answers.popleft


def serve(
    handler: Handler,
    peer: str,
    data: bytes,
    refused: Callable[[str, str], None] | None = None,
) -> bytes:
    """The frame that answers the frame `data` of `peer`.

    Never fails for what a peer sent or a handler raised: the answer is then a Refusal, and
    `refused(peer, reason)` is told so that it can end the peer's session. Only Interrupted
    passes through, since it is meant for this process.
    """
    try:
        return encode(handler(peer, decode(data)))
    except Interrupted:
        raise
    except ElsaError as error:
        known = next(kind for kind in type(error).__mro__ if kind.__name__ in _RAISABLE)
        refusal = Refusal(known.__name__, plain(str(error)))
    except Exception:
        _log.exception("request of %s failed", peer)
        refusal = Refusal(WireError.__name__, "internal error; the log of the other end says more")
    if refused is not None:
        refused(peer, f"{refusal.error}: {refusal.reason}")
    return encode(refusal)


def error_of(refusal: Refusal) -> ElsaError:
    """The error that a refusal stands for.

    Interrupted is none of them: a peer cannot say that the person here asked to stop.
    """
    kind = _RAISABLE.get(refusal.error)
    if kind is None:
        return FrameError(f"refused with an unknown error '{refusal.error}': {refusal.reason}")
    return kind(refusal.reason)

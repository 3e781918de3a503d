"""One verb: ask a peer and get its answer; and the one place where layers see what passes.

    caller                                                        server
    call -> encode -> layers -> exchange ~~~~ bytes ~~~~> serve -> handler
    call <- decode <- layers <- exchange <~~~ bytes ~~~~~ serve <-

A transport is a `Caller` with its own `exchange`: in process a function call, over a network a
stream. A server of any transport answers through `serve`, which turns errors into refusals;
`Caller` turns refusals back into the same errors.
"""

import logging
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

Exchange = Callable[[bytes], bytes]
"""Carries a request's frame to the server and brings back the frame of the answer."""

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
    """

    link: Link
    direction: Direction
    message: Message
    data: bytes


Layer = Callable[[Passage], bytes]
"""An effect on every frame of a link: counting, recording, breaking. It returns the bytes to pass
on, the same where nothing changes, or raises WireError."""


class Transport(Protocol):
    """A link as its caller sees it."""

    def call(self, request: Message) -> Message:
        """Ask, and wait for the answer.

        Raises:
            FrameError: the request may not be sent, or the answer is no frame.
            ElsaError: of the very class that the server refused the request with.
        """
        ...


class Caller:
    """The caller's end of a link: `exchange` behind layers, the first nearest to the caller."""

    def __init__(self, exchange: Exchange, link: Link, layers: Sequence[Layer] = ()) -> None:
        self._exchange = exchange
        self._link = link
        self._layers = tuple(layers)

    def call(self, request: Message) -> Message:
        """Ask, and wait for the answer; see `Transport`."""
        sent = encode(request)
        answer = self._exchange(self._pass(self._layers, True, request, sent))
        reply = decode(answer)
        received = self._pass(self._layers[::-1], False, reply, answer)
        if received is not answer:
            reply = decode(received)
        if isinstance(reply, Refusal):
            raise error_of(reply)
        return reply

    def _pass(
        self, layers: Sequence[Layer], is_request: bool, message: Message, data: bytes
    ) -> bytes:
        direction = self._link.direction(request=is_request)
        for layer in layers:
            data = layer(Passage(self._link, direction, message, data))
        return data


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

"""Layers that watch or break what passes over a link; see `transport` for where they sit."""

import time
from collections.abc import Callable

from elsa.errors import WireError
from elsa.wire.messages import Activations, Message, Ready
from elsa.wire.transport import Direction, Passage

Effect = Callable[[bytes], bytes]
"""What a fault does to a frame; or it raises WireError."""


Seen = Callable[[Message, int], None]
"""Is told of a request, or of the answer to it, and of the bytes that moved."""


class Observe:
    """A layer that tells of every frame of one link: the virtual clock hangs here.

    `asked(request, bytes)` is told of a request when it is sent, `answered(request, bytes)` of its
    answer when that is there.
    """

    def __init__(self, asked: Seen, answered: Seen) -> None:
        self._asked = asked
        self._answered = answered

    def __call__(self, passage: Passage) -> bytes:
        """Tell of the frame; it passes unchanged."""
        asked = passage.direction == passage.link.direction(request=True)
        request = passage.message if passage.request is None else passage.request
        (self._asked if asked else self._answered)(request, len(passage.data))
        return passage.data


class Tap:
    """A layer that keeps every frame: what someone on the wire would see.

    Attributes:
        frames: the frames in the order they passed; the index is the sequence number.
    """

    def __init__(self) -> None:
        self.frames: list[Passage] = []

    def __call__(self, passage: Passage) -> bytes:
        """Keep the frame; it passes unchanged."""
        self.frames.append(passage)
        return passage.data


class Fault:
    """A layer that breaks one frame of one peer, once; may be shared by all links."""

    def __init__(
        self,
        peer: str,
        when: int | tuple[int, int],
        effect: Effect,
        direction: Direction = "up",
    ) -> None:
        """Set up.

        Args:
            peer: name of the lower end of the link: a device, or an edge towards the cloud.
            when: number of the call on that link, from 0; or (round, step), the hidden states
                of that training step of a device in the first edge round of that global round.
            effect: `drop`, or what `delay`, `corrupt` or `truncate` returns.
            direction: which frame of the call: up or down.
        """
        self._peer = peer
        self._when = when
        self._effect = effect
        self._direction = direction
        self._call = -1
        self._round = -1
        self._done = False

    def __call__(self, passage: Passage) -> bytes:
        """Break the frame if it is the one; every other passes unchanged."""
        if passage.link.below != self._peer or self._done:
            return passage.data
        if passage.direction == passage.link.direction(request=True):
            self._call += 1
        if isinstance(passage.message, Ready):
            self._round = passage.message.round
        if passage.direction != self._direction or self._place(passage) != self._when:
            return passage.data
        self._done = True
        return self._effect(passage.data)

    def _place(self, passage: Passage) -> int | tuple[int, int] | None:
        if isinstance(self._when, int):
            return self._call
        match passage.message:
            case Activations(training=True, step=step):
                return self._round, step
            case _:
                return None


def drop(data: bytes) -> bytes:
    """The frame is lost and the link with it.

    Raises:
        WireError: always.
    """
    raise WireError(f"the link broke while a frame of {len(data)} bytes was on its way")


def delay(seconds: float, wait: Callable[[float], None] = time.sleep) -> Effect:
    """The frame comes late; `wait` may move a virtual clock instead of sleeping."""

    def effect(data: bytes) -> bytes:
        wait(seconds)
        return data

    return effect


def corrupt(at: int = 0) -> Effect:
    """All bits of byte `at` are flipped; at 0 the frame can no longer be read."""

    def effect(data: bytes) -> bytes:
        return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]

    return effect


def truncate(size: int) -> Effect:
    """Only the first `size` bytes arrive."""
    return lambda data: data[:size]

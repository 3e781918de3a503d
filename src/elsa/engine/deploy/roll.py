"""Which devices are at an edge's server, since when, and where they shall go.

Not safe to share between threads: whoever holds it guards it.
"""

import math
from collections.abc import Callable, Collection, Sequence
from time import monotonic

from elsa.wire.messages import Task
from elsa.wire.places import Move, Presence, Present, Route


class Roll:
    """Devices that were greeted, and devices without a stream.

    Attributes:
        away: devices without a stream, and since when.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.away: dict[str, float] = {}
        self._clock = clock
        self._greeted: dict[str, tuple[Route, ...]] = {}
        self._heard: dict[str, float] = {}
        self._moves: dict[str, str] = {}

    def __contains__(self, peer: str) -> bool:
        """Whether a device was greeted in its present session."""
        return peer in self._greeted

    def greet(self, peer: str, routes: Sequence[Route]) -> None:
        """A device registered, with what it measured."""
        self._greeted[peer] = tuple(routes)
        self.hear(peer)

    def hear(self, peer: str) -> None:
        """A device said something."""
        self._heard[peer] = self._clock()

    def begin(self, peer: str) -> None:
        """A device began a new session, and must register again."""
        self.away.pop(peer, None)
        self._greeted.pop(peer, None)

    def expect(self, peers: Collection[str]) -> None:
        """Those that are not there have as long to come as if they had just gone away."""
        now = self._clock()
        for peer in peers:
            if peer not in self._greeted or peer in self.away:
                self.away[peer] = now

    def there(self) -> set[str]:
        """Devices that are registered and connected."""
        return self._greeted.keys() - self.away.keys()

    def awaited(self, seconds: float) -> set[str]:
        """Those, and devices that were there until so many seconds ago and may come back."""
        late = self._clock() - seconds
        return {peer for peer in self._greeted if self.away.get(peer, math.inf) > late}

    def call(self, moves: Sequence[Move]) -> Presence:
        """Who is there; these shall go elsewhere, and no others."""
        self._moves = {it.device: it.edge for it in moves}
        now = self._clock()
        return Presence(
            tuple(
                Present(peer, max(0.0, now - self._heard[peer]), self._greeted[peer])
                for peer in sorted(self.there())
            )
        )

    def move(self, peer: str) -> Task | None:
        """The task that sends a device elsewhere, if it shall go; it is given once."""
        edge = self._moves.pop(peer, "")
        if edge:
            del self._greeted[peer]
        return Task("move", 0, 0, edge) if edge else None

"""A device's part of an edge round, written down as legs: what must wait for what.

A device computes one thing at a time, in the order in which it asks. Each direction of its link
carries one frame at a time; a frame arrives a latency after its last byte was sent, and the next
may follow meanwhile. Its edge answers its requests in their order.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from elsa.engine.schedule import By, Leg, Part


@dataclass
class Legs:
    """Legs of one device, in the order in which they were written down.

    Attributes:
        legs: so far.
    """

    legs: list[Leg] = field(default_factory=list)
    _here: tuple[int, ...] = ()  # what must be over before the device goes on
    _last: dict[By, int] = field(default_factory=dict)  # the last leg of what does one at a time
    _there: deque[int] = field(default_factory=deque)  # arrivals at the edge without an answer

    def in_turn(self, *legs: Leg) -> None:
        """The device does nothing else while these pass, one after the other."""
        for leg in legs:
            follows = not self.legs or self._here == (len(self.legs) - 1,)
            self.legs.append(leg if follows else replace(leg, needs=self._here))
            self._here = (len(self.legs) - 1,)

    def compute(self, what: str, seconds: float) -> None:
        """The device computes, with all that it has received."""
        self._here = (self._add("device", what, seconds, self._here),)

    def send(self, what: str, seconds: float, latency: float) -> None:
        """It sends a request, which takes so long to be sent, and goes on."""
        sent = self._one("up", what, seconds, self._here)
        self._there.append(self._add("up", what, latency, (sent,)))

    def receive(self, busy: Leg, what: str, seconds: float, latency: float) -> None:
        """It waits for the answer to the earliest request, `busy` being the edge's work on it."""
        needs = self._before("edge", (self._there.popleft(),))
        self.legs.append(replace(busy, needs=needs))
        done = self._last["edge"] = len(self.legs) - 1
        sent = self._one("down", what, seconds, (done,))
        self._here = (*self._here, self._add("down", what, latency, (sent,)))

    def _one(self, by: By, what: str, seconds: float, needs: tuple[int, ...]) -> int:
        """Add a leg of what does one thing at a time."""
        self._last[by] = self._add(by, what, seconds, self._before(by, needs))
        return self._last[by]

    def _before(self, by: By, needs: tuple[int, ...]) -> tuple[int, ...]:
        last = self._last.get(by)
        return needs if last is None else (*needs, last)

    def _add(self, by: By, what: str, seconds: float, needs: tuple[int, ...]) -> int:
        self.legs.append(Leg("free", seconds, parts=(Part(by, what, seconds),), needs=needs))
        return len(self.legs) - 1

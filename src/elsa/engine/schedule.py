"""When devices that share an edge server's compute lane are done, leg by leg.

Devices compute and send at once; the edge computes for one at a time, first come first served. New
work may begin while other work is under way.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

By = Literal["device", "link", "edge"]


@dataclass(frozen=True)
class Part:
    """What a leg's time goes to.

    Attributes:
        by: whose time it is: the device's, its link's to the edge, or the edge's.
        what: for people.
        seconds: it takes.
    """

    by: By
    what: str
    seconds: float


@dataclass(frozen=True)
class Leg:
    """A stretch of a device's time: its own or the link's ("free"), or on the edge's lane.

    Attributes:
        after: the leg cannot start before all devices have passed `passes` of this number.
        passes: number that this leg's end counts towards.
        parts: what it goes to, in order; empty where nobody asks.
    """

    place: Literal["free", "edge"]
    seconds: float
    after: int = 0
    passes: int = 0
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Done:
    """Work that ended: of whom, and from when to when."""

    device: str
    began: float
    end: float


See = Callable[[str, Leg, float, float], None]
"""Is told of a leg of a device, with its start and its end."""


class Schedule:
    """Devices' work on one lane, in seconds from a zero that `shift` moves.

    Attributes:
        see: told of every leg when it starts; None tells nobody.
    """

    def __init__(self, see: See | None = None) -> None:
        self.see = see
        self._legs: dict[str, list[Leg]] = {}
        self._began: dict[str, float] = {}
        self._lane = 0.0
        self._due: Counter[int] = Counter()
        self._parked: dict[int, list[tuple[str, int]]] = {}
        self._tickets = count()  # of two that are ready at once, the first to have come goes first
        self._queue: list[tuple[float, int, str, int, int]] = []

    @property
    def at_work(self) -> tuple[str, ...]:
        """Devices whose work has not ended, in the order in which it began."""
        return tuple(self._legs)

    def begin(self, device: str, legs: Sequence[Leg], at: float = 0.0) -> None:
        """Begin work; `at` must not be before the end that `done` gave last."""
        assert device not in self._legs
        self._legs[device], self._began[device] = list(legs), at
        self._due.update(leg.passes for leg in legs if leg.passes)
        heapq.heappush(self._queue, (at, next(self._tickets), device, 0, 0))

    def done(self, until: float = math.inf) -> Done | None:
        """The next work to end, if any does by then."""
        while self._queue and self._queue[0][0] <= until:
            now, _, device, number, passed = heapq.heappop(self._queue)
            if passed:
                self._due[passed] -= 1
                for waiting in () if self._due[passed] else self._parked.pop(passed, ()):
                    heapq.heappush(self._queue, (now, next(self._tickets), *waiting, 0))
            legs = self._legs[device]
            if number == len(legs):
                del self._legs[device]
                return Done(device, self._began.pop(device), now)
            leg = legs[number]
            if self._due[leg.after]:
                self._parked.setdefault(leg.after, []).append((device, number))
                continue
            start = max(self._lane, now) if leg.place == "edge" else now
            end = start + leg.seconds
            if leg.place == "edge":
                self._lane = end
            if self.see:
                self.see(device, leg, start, end)
            heapq.heappush(self._queue, (end, next(self._tickets), device, number + 1, leg.passes))
        return None

    def clear(self) -> None:
        """Give up all work; the lane is free, and zero is when the next begins."""
        self._legs, self._began, self._queue, self._lane = {}, {}, [], 0.0
        self._due.clear()
        self._parked.clear()

    def shift(self, seconds: float) -> None:
        """Move zero so many seconds on; with nobody at work the lane is free there."""
        if not self._legs:
            self.clear()
            return
        self._lane -= seconds
        self._began = {device: began - seconds for device, began in self._began.items()}
        # In order, so that who came first stays first where two times become one by rounding.
        self._queue = [
            (time - seconds, next(self._tickets), device, number, passed)
            for time, _, device, number, passed in sorted(self._queue)
        ]
        heapq.heapify(self._queue)

    def state(self) -> dict[str, Any]:
        """Work under way as plain values, for `restore`; nobody may be waiting for others."""
        assert not self._parked
        ready = {device: (time, number) for time, _, device, number, _ in sorted(self._queue)}
        return {
            "lane": self._lane,
            "work": [
                {
                    "device": device,
                    "began": self._began[device],
                    "ready": time,
                    "legs": [_plain(leg) for leg in self._legs[device][number:]],
                }
                for device, (time, number) in ready.items()
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state`."""
        self.clear()
        self._lane = state["lane"]
        for work in state["work"]:
            legs = [
                Leg(place, seconds, parts=tuple(Part(*part) for part in parts))
                for place, seconds, parts in work["legs"]
            ]
            self.begin(work["device"], legs, work["ready"])
            self._began[work["device"]] = work["began"]


def finish_times(traces: Sequence[Sequence[Leg]]) -> list[float]:
    """When each device has done its legs, in seconds from the start of the edge round."""
    schedule, ends = Schedule(), [0.0] * len(traces)
    for number, legs in enumerate(traces):
        schedule.begin(str(number), legs)
    while done := schedule.done():
        ends[int(done.device)] = done.end
    return ends


def _plain(leg: Leg) -> tuple[str, float, list[tuple[str, str, float]]]:
    return leg.place, leg.seconds, [(it.by, it.what, it.seconds) for it in leg.parts]

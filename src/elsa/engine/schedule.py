"""When devices that share an edge server's compute lane are done, leg by leg.

Devices compute and send at once; the edge computes for one at a time, first come first served. New
work may begin while other work is under way.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

By = Literal["device", "up", "down", "edge"]


@dataclass(frozen=True)
class Part:
    """What a leg's time goes to.

    Attributes:
        by: whose time it is: the device's, that of its link to or from the edge, or the edge's.
        what: for people.
        seconds: it takes.
    """

    by: By
    what: str
    seconds: float


@dataclass(frozen=True)
class Leg:
    """A stretch of a device's time: its own or its link's ("free"), or on the edge's lane.

    Attributes:
        after: the leg cannot start before all devices have passed `passes` of this number.
        passes: number that this leg's end counts towards.
        parts: what it goes to, in order; empty where nobody asks.
        needs: places of the legs before it, among those of the same work, whose end it waits for;
            None for the one just before it. Legs that wait for other ones run at once.
    """

    place: Literal["free", "edge"]
    seconds: float
    after: int = 0
    passes: int = 0
    parts: tuple[Part, ...] = ()
    needs: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Done:
    """Work that ended: of whom, and from when to when."""

    device: str
    began: float
    end: float


See = Callable[[str, Leg, float, float], None]
"""Is told of a leg of a device, with its start and its end."""

_BEGIN = -1
"""Place of what comes before the first leg."""


@dataclass
class _Work:
    """Legs of a device.

    Attributes:
        ended: places of those that are over.
        missing: of legs that name what they need, how many of those are not over.
        heirs: by place, the legs that name it.
    """

    legs: Sequence[Leg]
    began: float
    ended: set[int] = field(default_factory=set)
    missing: dict[int, int] = field(default_factory=dict)
    heirs: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, leg in enumerate(self.legs):
            if leg.needs is None:
                continue
            needs = set(leg.needs) or {_BEGIN}
            self.missing[number] = len(needs)
            for each in needs:
                self.heirs.setdefault(each, []).append(number)

    def end(self, number: int) -> list[int]:
        """A leg is over; those that nothing keeps from starting any more, in their order."""
        if number != _BEGIN:
            self.ended.add(number)
        free, after = [], number + 1
        if after < len(self.legs) and self.legs[after].needs is None:
            free.append(after)
        for heir in self.heirs.get(number, ()):
            self.missing[heir] -= 1
            if not self.missing[heir]:
                free.append(heir)
        return free

    @property
    def over(self) -> bool:
        return len(self.ended) == len(self.legs)


class Schedule:
    """Devices' work on one lane, in seconds from a zero that `shift` moves.

    Attributes:
        see: told of every leg when it starts; None tells nobody.
    """

    def __init__(self, see: See | None = None) -> None:
        self.see = see
        self._work: dict[str, _Work] = {}
        self._lane = 0.0
        self._due: Counter[int] = Counter()
        self._parked: dict[int, list[tuple[str, int]]] = {}
        self._tickets = count()  # of two that are ready at once, the first to have come goes first
        # When a leg ends, or, if it was parked, starts: time, ticket, device, place, which of them.
        self._queue: list[tuple[float, int, str, int, bool]] = []

    @property
    def at_work(self) -> tuple[str, ...]:
        """Devices whose work has not ended, in the order in which it began."""
        return tuple(self._work)

    def begin(self, device: str, legs: Sequence[Leg], at: float = 0.0) -> None:
        """Begin work; `at` must not be before the end that `done` gave last."""
        assert device not in self._work
        self._work[device] = _Work(list(legs), at)
        self._due.update(leg.passes for leg in legs if leg.passes)
        self._push(at, device, _BEGIN)

    def done(self, until: float = math.inf) -> Done | None:
        """The next work to end, if any does by then."""
        while self._queue and self._queue[0][0] <= until:
            now, _, device, number, starts = heapq.heappop(self._queue)
            work, free = self._work[device], [number]
            if not starts:
                passed = work.legs[number].passes if number != _BEGIN else 0
                free = work.end(number)
                if passed:
                    self._due[passed] -= 1
                    for waiting in () if self._due[passed] else self._parked.pop(passed, ()):
                        self._push(now, *waiting, starts=True)
                if work.over:
                    del self._work[device]
                    return Done(device, work.began, now)
            for each in free:
                self._start(device, each, work.legs[each], now)
        return None

    def clear(self) -> None:
        """Give up all work; the lane is free, and zero is when the next begins."""
        self._work, self._queue, self._lane = {}, [], 0.0
        self._due.clear()
        self._parked.clear()

    def shift(self, seconds: float) -> None:
        """Move zero so many seconds on; with nobody at work the lane is free there."""
        if not self._work:
            self.clear()
            return
        self._lane -= seconds
        for work in self._work.values():
            work.began -= seconds
        # In order, so that who came first stays first where two times become one by rounding.
        self._queue = [
            (time - seconds, next(self._tickets), device, number, starts)
            for time, _, device, number, starts in sorted(self._queue)
        ]
        heapq.heapify(self._queue)

    def state(self) -> dict[str, Any]:
        """Work under way as plain values, for `restore`; nobody may be waiting for others."""
        assert not self._parked
        return {
            "lane": self._lane,
            "work": [
                {
                    "device": device,
                    "began": work.began,
                    "legs": [_plain(leg) for leg in work.legs],
                    "ended": sorted(work.ended),
                }
                for device, work in self._work.items()
            ],
            "queue": [
                (time, device, number, starts)
                for time, _, device, number, starts in sorted(self._queue)
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state`."""
        self.clear()
        self._lane = state["lane"]
        for row in state["work"]:
            legs = [
                Leg(
                    place,
                    seconds,
                    parts=tuple(Part(*part) for part in parts),
                    needs=None if needs is None else tuple(needs),
                )
                for place, seconds, parts, needs in row["legs"]
            ]
            work = self._work[row["device"]] = _Work(legs, row["began"])
            under_way = {
                number for _, device, number, _ in state["queue"] if device == row["device"]
            }
            if _BEGIN not in under_way:
                work.end(_BEGIN)
            for number in row["ended"]:
                work.end(number)
        for time, device, number, starts in state["queue"]:
            self._push(time, device, number, starts=starts)

    def _start(self, device: str, number: int, leg: Leg, now: float) -> None:
        if self._due[leg.after]:
            self._parked.setdefault(leg.after, []).append((device, number))
            return
        start = max(self._lane, now) if leg.place == "edge" else now
        end = start + leg.seconds
        if leg.place == "edge":
            self._lane = end
        if self.see:
            self.see(device, leg, start, end)
        self._push(end, device, number)

    def _push(self, time: float, device: str, number: int, *, starts: bool = False) -> None:
        heapq.heappush(self._queue, (time, next(self._tickets), device, number, starts))


def finish_times(traces: Sequence[Sequence[Leg]]) -> list[float]:
    """When each device has done its legs, in seconds from the start of the edge round."""
    schedule, ends = Schedule(), [0.0] * len(traces)
    for number, legs in enumerate(traces):
        schedule.begin(str(number), legs)
    while done := schedule.done():
        ends[int(done.device)] = done.end
    return ends


def _plain(leg: Leg) -> tuple[str, float, list[tuple[str, str, float]], tuple[int, ...] | None]:
    return leg.place, leg.seconds, [(it.by, it.what, it.seconds) for it in leg.parts], leg.needs

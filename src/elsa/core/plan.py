"""Splits for the devices of one edge server, chosen together (ELSA, arXiv 2601.13824 v2, dynamic
splitting; this formulation is ours).

Devices of an edge work at once, and share its one compute lane. With n devices whose local step
takes s_n seconds when nobody else asks the edge, e_n of them on the lane, no schedule is faster
than

    T = max(max_n s_n, sum_n e_n)

a step, and `fit_jointly` minimises T exactly. T says nothing of waiting in the queue, which decides
where the lane is neither mostly idle nor always busy; so `refined` goes on from there by whatever
clock it is given, one device at a time.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from elsa.core.split import Split

BUSY = 0.5
"""Part of the time that a lane may be busy before devices are asked to relieve it."""


@dataclass(frozen=True)
class Option:
    """A split that a device could have.

    Attributes:
        split: where the model is cut.
        memory: bytes that the device would hold.
        seconds: of a local step while nobody else asks the edge: device, wire and edge.
        load: seconds on the edge's lane, times how often the device takes part.
    """

    split: Split
    memory: float
    seconds: float
    load: float


Chosen = dict[str, Option]
Clock = Callable[[Chosen], float]
"""Seconds that devices with these splits take together."""
WORTH = 0.005
TRIALS = 1000


def step_seconds(chosen: Iterable[Option]) -> float:
    """T: seconds of a local step of all devices of an edge, with these splits."""
    own = list(chosen)
    return max(*(it.seconds for it in own), sum(it.load for it in own)) if own else 0.0


def fit_jointly(options: Mapping[str, Sequence[Option]]) -> dict[str, Option]:
    """A split for each device so that T is least; at least one option each.

    For a given T every device is best at the least load among its options with s_n <= T, and that
    load falls as T grows: so the first T that covers the loads is found by bisection over the
    values that s_n can take. Then devices go back to the quickest of their options, those first
    that gain most, as long as the lane stays less than half busy: where an edge is quick, nobody
    computes for it.
    """
    if not options:
        return {}
    fronts = {name: _front(own) for name, own in options.items()}
    least = max(own[0].seconds for own in fronts.values())
    times = sorted({it.seconds for own in fronts.values() for it in own if it.seconds >= least})

    def chosen(time: float) -> dict[str, Option]:
        return {
            name: own[bisect_left(own, True, key=lambda it: it.seconds > time) - 1]
            for name, own in fronts.items()
        }

    def load(time: float) -> float:
        return sum(it.load for it in chosen(time).values())

    place = bisect_left(times, True, key=lambda time: load(time) <= time)
    best = min(max(time, load(time)) for time in times[max(place - 1, 0) : place + 1])
    return _relieved(chosen(best), {name: own[0] for name, own in fronts.items()})


def refined(
    starts: Sequence[Chosen], options: Mapping[str, Sequence[Option]], clock: Clock
) -> Chosen:
    """The best of `starts` by a clock, then better still, as long as one device's change helps.

    A change counts if it saves more than `WORTH` of the time; after `TRIALS` of them it is enough.
    """
    best = min(starts, key=clock)
    time, since = clock(best), 0
    changes = [(name, it) for name, own in options.items() for it in _front(own)]
    for name, option in islice(cycle(changes), TRIALS):
        if since == len(changes):  # none of them helps
            break
        since += 1
        if option != best[name]:
            changed = best | {name: option}
            if (sooner := clock(changed)) < (1 - WORTH) * time:
                best, time, since = changed, sooner, 0
    return best


def settled(current: Chosen, best: Chosen, margin: float, clock: Clock) -> Chosen:
    """The best splits, or the current ones unless the best gain more than `margin` of the time.

    Args:
        current: what each device has now, at today's cost; one that no longer fits is left out.
        best: what would suit them now.
        margin: part of the time, 0 to below 1.
        clock: seconds that splits take together.
    """
    if current.keys() != best.keys():
        return best
    return best if clock(best) < (1 - margin) * clock(current) else current


def _front(options: Sequence[Option]) -> list[Option]:
    """Those that nobody beats in both time and load: by rising seconds, falling load."""
    front: list[Option] = []
    for it in sorted(options, key=lambda it: (it.seconds, it.load, it.memory)):
        if not front or it.load < front[-1].load:
            front.append(it)
    return front


def _relieved(chosen: dict[str, Option], quickest: Mapping[str, Option]) -> dict[str, Option]:
    relieved = dict(chosen)
    allowed = BUSY * step_seconds(chosen.values())
    busy = sum(it.load for it in chosen.values())
    for name in sorted(chosen, key=lambda name: quickest[name].seconds - chosen[name].seconds):
        more = quickest[name].load - chosen[name].load
        if busy + more <= allowed:
            relieved[name] = quickest[name]
            busy += more
    return relieved

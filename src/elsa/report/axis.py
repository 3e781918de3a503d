"""Axes: round numbers to mark, and where a value lies."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from elsa.report.numbers import size

SLACK = 1e-9


@dataclass(frozen=True)
class Axis:
    """An axis from `ticks[0]` to `ticks[-1]`, drawn from `start` to `end`.

    Attributes:
        ticks: values that are marked, in rising order.
        start, end: where the first and the last of them lie in the drawing.
        text: what a tick is labelled with.
    """

    ticks: tuple[float, ...]
    start: float
    end: float
    text: Callable[[float], str]

    def at(self, value: float) -> float:
        """Where a value lies."""
        first, last = self.ticks[0], self.ticks[-1]
        part = (value - first) / (last - first) if last > first else 0.5
        return self.start + part * (self.end - self.start)


def ticks(low: float, high: float, most: int = 5, least_step: float = 0.0) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten that reach from below `low` to above `high`.

    Args:
        low, high: finite, low <= high.
        most: so many intervals at most, and two more at the ends.
        least_step: no two ticks are closer.
    """
    span = max(high - low, abs(high) * 1e-6, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(it * power for it in (1, 2, 5, 10, 20) if it * power * most >= span * (1 - SLACK))
    step = max(step, least_step)
    first = math.floor(low / step + SLACK)
    last = max(math.ceil(high / step - SLACK), first + 1)
    return tuple(number * step for number in range(first, last + 1))


def plain(values: Iterable[float]) -> Callable[[float], str]:
    """Labels of ticks with as few digits as tell them apart."""
    marked = tuple(values)
    step = min((b - a for a, b in pairwise(marked)), default=1.0)
    digits = max(0, -math.floor(math.log10(step) + SLACK)) if step > 0 else 0
    if max(map(abs, marked), default=0.0) >= 1e6 or digits > 6:
        return lambda value: f"{value:.3g}"
    return lambda value: f"{value + 0.0:,.{digits}f}"


def bytes_text(value: float) -> str:
    """A tick of an axis of bytes, without a point where there is nothing behind it."""
    return size(value).replace(".0 ", " ")


def of_rounds(last: int, start: float, end: float) -> Axis:
    """An axis of global rounds, counted from 1 as people do; a single one lies in the middle."""
    marked = [tick for tick in ticks(1, max(last, 2), most=6, least_step=1.0) if 1 <= tick <= last]
    if not marked or marked[0] != 1:
        marked.insert(0, 1.0)
    if marked[-1] != last:
        if len(marked) > 1 and last - marked[-1] < (marked[-1] - marked[-2]) / 2:
            marked.pop()
        marked.append(float(last))
    return Axis(tuple(marked), start, end, lambda value: f"{value:.0f}")

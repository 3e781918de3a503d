"""Mean, spread and paired differences over seeds.

An interval is Student's t at 95 % of the mean of paired differences, which takes them as normal;
with two or three seeds it is wide, and says what so few seeds can.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Numbers of several seeds.

    Attributes:
        mean: of them.
        deviation: standard deviation of a sample; None of one.
        least, most: the extremes.
        count: how many.
    """

    mean: float
    deviation: float | None
    least: float
    most: float
    count: int


@dataclass(frozen=True)
class Difference:
    """Of two methods, seed by seed.

    Attributes:
        mean: of the differences.
        low, high: bounds of the interval; None of one seed.
        count: seeds that both have.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def certain(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def spread(values: Sequence[float | None]) -> Spread | None:
    """What there is of these numbers; None if there are none."""
    held = [value for value in values if value is not None]
    if not held:
        return None
    deviation = statistics.stdev(held) if len(held) > 1 else None
    return Spread(statistics.fmean(held), deviation, min(held), max(held), len(held))


def difference(
    ours: Mapping[int, float | None], theirs: Mapping[int, float | None]
) -> Difference | None:
    """Ours less theirs over the seeds that both have, by seed; None if there are none."""
    pairs = [(ours[seed], theirs.get(seed)) for seed in ours]
    gaps = [one - two for one, two in pairs if one is not None and two is not None]
    if not gaps:
        return None
    mean = statistics.fmean(gaps)
    if len(gaps) == 1:
        return Difference(mean, None, None, 1)
    from scipy.stats import t

    error = statistics.stdev(gaps) / math.sqrt(len(gaps))
    half = float(t.ppf((1 + LEVEL) / 2, len(gaps) - 1)) * error
    return Difference(mean, mean - half, mean + half, len(gaps))


def best_rate(scores: Mapping[float, float]) -> float | None:
    """The learning rate of the highest score; of those alike the lowest; None of none."""
    return max(sorted(scores), key=lambda rate: scores[rate]) if scores else None

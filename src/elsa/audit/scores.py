"""How well an attack does: a share or an AUC, with an interval and what guessing would give.

Intervals are 95 % percentile bootstraps over texts, not over tokens: tokens of one text are not
independent of each other (Efron 1979; Efron and Tibshirani 1993, section 13.3).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elsa.errors import DataError

DRAWS = 1000
Statistic = Callable[[NDArray[np.int64]], float]
"""A score of the units of these numbers; a number may come more than once."""


@dataclass(frozen=True)
class Score:
    """The outcome of an attack.

    Attributes:
        value: the score.
        low, high: its 95 % interval.
        chance: what who has seen nothing would score.
        units: texts, devices or whatever was drawn from.
    """

    value: float
    low: float
    high: float
    chance: float
    units: int


def bootstrap(statistic: Statistic, units: int, chance: float, seed: int) -> Score:
    """The score of all units, with its interval over units drawn with replacement.

    Raises:
        DataError: there are no units.
    """
    if units < 1:
        raise DataError("an attack without texts to attack has no score")
    generator = np.random.default_rng((seed, units))
    drawn = [statistic(generator.integers(units, size=units)) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Score(statistic(np.arange(units)), float(low), float(high), chance, units)


def share(hits: Sequence[float], items: Sequence[float] | None, chance: float, seed: int) -> Score:
    """Share of items that were hit; `hits` and `items` count them by text (one a text if None)."""
    hit = np.asarray(hits, np.float64)
    of = np.ones(len(hit)) if items is None else np.asarray(items, np.float64)
    return bootstrap(
        lambda rows: float(hit[rows].sum() / max(of[rows].sum(), 1e-12)), len(hit), chance, seed
    )


def rouge_l(truth: Sequence[int], guess: Sequence[int]) -> float:
    """ROUGE-L F1 of two texts of token ids: of their longest common subsequence (Lin 2004)."""
    if not truth or not guess:
        return 0.0
    row = [0] * (len(guess) + 1)
    for token in truth:
        before = 0
        for place, other in enumerate(guess, 1):
            here = row[place]
            row[place] = before + 1 if token == other else max(here, row[place - 1])
            before = here
    return 2 * row[-1] / (len(truth) + len(guess))


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Probability that a positive scores above a negative, ties counting half (Mann-Whitney)."""
    one, other = np.asarray(positive, np.float64), np.sort(np.asarray(negative, np.float64))
    below = np.searchsorted(other, one, "left")
    not_above = np.searchsorted(other, one, "right")
    return float((below + not_above).sum() / (2 * len(one) * len(other)))


def auc_score(positive: Sequence[float], negative: Sequence[float], seed: int) -> Score:
    """AUC of members against others, each a text, with its interval."""
    count = len(positive)
    values = np.concatenate([np.asarray(positive, np.float64), np.asarray(negative, np.float64)])

    def statistic(rows: NDArray[np.int64]) -> float:
        members = rows < count
        if members.all() or not members.any():
            return 0.5
        return auc(values[rows[members]].tolist(), values[rows[~members]].tolist())

    return bootstrap(statistic, len(values), 0.5, seed)

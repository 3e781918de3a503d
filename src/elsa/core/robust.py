"""Averages that a few bad updates cannot move far. They need all updates at once.

None of them looks at weights: a weight is partly what a sender says of itself, and one liar with
a million rows would outvote everybody. n updates, of which f may be anything at all.

- Coordinate-wise median and trimmed mean: Yin et al. 2018, arXiv 1803.01498.
- Krum and multi-Krum: Blanchard et al. 2017, "Machine Learning with Adversaries"; multi-Krum with
  the m = n - f - 2 of El Mhamdi et al. 2018, arXiv 1802.07927.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from elsa.core.aggregate import check_update

Update = Mapping[str, Tensor]
Rule = Callable[[Sequence[Update]], Mapping[str, Tensor]]
"""n updates, at least one -> a value for every key that any of them holds, in float64."""


class Gathered:
    """A rule over whole updates, all of which it holds until the result is asked for."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._updates: dict[str, dict[str, Tensor]] = {}

    def add(self, adapters: Mapping[str, Tensor], weight: float, sender: str = "") -> None:
        """Keep a sender's update, or a part of it; raises as `Mean.add`.

        The tensors are held, not copied. The weight is checked, and that is all.
        """
        shapes = {name: it.shape for known in self._updates.values() for name, it in known.items()}
        check_update(adapters, weight, shapes)
        self._updates.setdefault(sender, {}).update(adapters)

    def result(self, otherwise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the rule makes of every key of `otherwise`; see `Mean.result`.

        The order in which updates came does not matter, to the bit: the rule gets them sorted by
        sender.
        """
        if not self._updates:
            return dict(otherwise)
        made = self._rule([self._updates[sender] for sender in sorted(self._updates)])
        return {
            name: made[name].to(value.dtype) if name in made else value
            for name, value in otherwise.items()
        }


def coordinate_median(updates: Sequence[Update]) -> dict[str, Tensor]:
    """The median of each number, over whoever holds its key; of two middle ones, their mean."""
    made = {}
    for name, stacked in _by_key(updates):
        count = len(stacked)
        values = stacked.sort(0).values
        made[name] = (values[(count - 1) // 2] + values[count // 2]) / 2
    return made


def trimmed_mean(updates: Sequence[Update], trim: float) -> dict[str, Tensor]:
    """The mean of each number without its `trimmed(n, trim)` largest and as many smallest."""
    made = {}
    for name, stacked in _by_key(updates):
        count = len(stacked)
        cut = trimmed(count, trim)
        made[name] = stacked.sort(0).values[cut : count - cut].mean(0)
    return made


def trimmed(count: int, trim: float) -> int:
    """How many of `count` are dropped at each end: floor(trim * count), 0 <= trim < 0.5."""
    return math.floor(trim * count + 1e-9)


def krum(updates: Sequence[Update], byzantine: int) -> dict[str, Tensor]:
    """The one update that lies closest to its n - f - 2 nearest others.

    With fewer than 2 f + 3 updates that means nothing, and the coordinate-wise median is taken.
    """
    if len(updates) < enough(byzantine):
        return coordinate_median(updates)
    best = int(krum_scores(updates, byzantine).argmin())
    return {name: value.double() for name, value in updates[best].items()}


def multi_krum(updates: Sequence[Update], byzantine: int) -> dict[str, Tensor]:
    """The plain mean of the n - f - 2 updates with the best scores; with too few, as `krum`."""
    if len(updates) < enough(byzantine):
        return coordinate_median(updates)
    order = krum_scores(updates, byzantine).argsort(stable=True).tolist()
    kept = [updates[number] for number in sorted(order[: len(updates) - byzantine - 2])]
    return {name: stacked.mean(0) for name, stacked in _by_key(kept)}


def enough(byzantine: int) -> int:
    """Updates that Krum needs against so many bad ones: 2 f + 3."""
    return 2 * byzantine + 3


def krum_scores(updates: Sequence[Update], byzantine: int) -> Tensor:
    """Sum of the squared distances of each to its n - f - 2 nearest others, float64 [n].

    Distances are over the keys that all of them hold: devices of other tasks have other heads.
    """
    count = len(updates)
    shared = [name for name in updates[0] if all(name in update for update in updates)]
    squared = torch.zeros(count, count, dtype=torch.float64)
    for name in shared:
        rows = torch.stack([update[name].double().flatten() for update in updates])
        squared += torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    squared.fill_diagonal_(math.inf)
    return squared.sort(1).values[:, : count - byzantine - 2].sum(1)


def _by_key(updates: Sequence[Update]) -> list[tuple[str, Tensor]]:
    """Each key once, in order of appearance, with its holders' values in float64, [n, ...]."""
    names = dict.fromkeys(name for update in updates for name in update)
    return [
        (name, torch.stack([update[name].double() for update in updates if name in update]))
        for name in names
    ]

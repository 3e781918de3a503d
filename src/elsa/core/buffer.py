"""Averaging as soon as enough updates are there: who is awaited, and what a late update counts.

A semi-asynchronous server averages when enough of its devices' updates have come, and does not wait
for the others. These go on, and count in the average after whose beginning they come. An update
that began s averages ago was learned from adapters that are no longer there; as in FedBuff (Nguyen
et al. 2022, arXiv 2106.06639) what it changed is added to the adapters of now, and counts
(1 + s)^-a times (FedAsync's polynomial weight, Xie et al. 2019, arXiv 1903.03934, section 5.2):

    x' = x + sum_i n_i (1 + s_i)^-a (y_i - x_i) / sum_i n_i

where device i went from x_i to y_i on n_i rows. If all s_i = 0, x_i is x, and x' the mean of y_i.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor


def enough(quorum: float, asked: int) -> int:
    """Updates that are enough of so many asked for, where `quorum` is the part that is."""
    return min(asked, max(1, math.ceil(quorum * asked - 1e-9)))


@dataclass(frozen=True)
class Buffer:
    """Which updates are on their way to a server, and which are there.

    An update is begun, comes, and is counted once; or it is lost, and never counted.

    Attributes:
        number: averages taken so far.
        away: devices whose update is on its way, with `number` as it was when that began.
        there: those whose update has come and is not yet averaged, likewise.
    """

    number: int = 0
    away: Mapping[str, int] = field(default_factory=dict)
    there: Mapping[str, int] = field(default_factory=dict)

    def begin(self, device: str) -> "Buffer":
        """A device goes to work; it must have no update on its way, nor one that waits."""
        assert device not in self.away
        assert device not in self.there
        return replace(self, away={**self.away, device: self.number})

    def come(self, device: str) -> "Buffer":
        """A device's update has come."""
        left = {name: began for name, began in self.away.items() if name != device}
        return replace(self, away=left, there={**self.there, device: self.away[device]})

    def lose(self, device: str) -> "Buffer":
        """A device's update, if there is one, is never to be counted."""
        away = {name: began for name, began in self.away.items() if name != device}
        there = {name: began for name, began in self.there.items() if name != device}
        return replace(self, away=away, there=there)

    def average(self) -> tuple[dict[str, int], "Buffer"]:
        """Take the average: the staleness s of each update counted, and what is left."""
        counted = {device: self.number - began for device, began in self.there.items()}
        return counted, Buffer(self.number + 1, self.away)


def staleness_weight(staleness: int, exponent: float) -> float:
    """(1 + s)^-a: what an update that began s averages ago counts; 1 for a fresh one."""
    return float((1 + staleness) ** -exponent)


def rebased(
    update: Mapping[str, Tensor],
    begun: Mapping[str, Tensor],
    now: Mapping[str, Tensor],
    weight: float,
) -> dict[str, Tensor]:
    """What an update gives when what it changed is added to the adapters of now.

    Args:
        update: y, key by key.
        begun: x_i, that it was learned from; has all keys of y, and may have more.
        now: x, likewise.
        weight: that the change counts.
    """
    # In this order a fresh update of full weight is itself to the bit: now less begun is nothing.
    return {
        name: (now[name].double() - weight * begun[name].double() + weight * value.double()).to(
            value.dtype
        )
        for name, value in update.items()
    }

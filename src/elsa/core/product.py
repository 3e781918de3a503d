"""Averages that treat LoRA's two factors as one thing: their product.

The mean of A and the mean of B have another product than the mean of B A. Here the products are
averaged, W = sum_n w_n B_n A_n / sum_n w_n, and the result is factorised again (compare FlexLoRA,
Bai et al. 2024, arXiv 2402.11505). W may have the ranks of all updates together; what is kept is
its best approximation of the adapters' rank.
"""

import math
from collections.abc import Mapping

import torch
from torch import Size, Tensor

from elsa.core.aggregate import Mean, WeightedMean, check_update
from elsa.core.lowrank import by_singular_value, factorised, sites


class ProductMean:
    """The weighted mean of products; of heads, the plain weighted mean.

    It holds the factors of all updates: the QR of `factorised` takes them side by side.
    """

    def __init__(self) -> None:
        self._rest = WeightedMean()
        self._factors: dict[str, list[tuple[Tensor, Tensor, float]]] = {}
        self._shapes: dict[str, Size] = {}

    def add(self, adapters: Mapping[str, Tensor], weight: float, sender: str = "") -> None:
        """Add adapters that count `weight` times; raises as `Mean.add`."""
        found = list(sites(adapters))
        factors = {name for site in found for name in site}
        check_update(adapters, weight, self._shapes)
        self._shapes |= {name: adapters[name].shape for name in factors}
        rest = {name: value for name, value in adapters.items() if name not in factors}
        self._rest.add(rest, weight, sender)
        for a, b in found:
            self._factors.setdefault(a, []).append((adapters[a], adapters[b], weight))

    def result(self, otherwise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Factors of the mean products, in the rank of `otherwise`; see `Mean.result`."""
        made = self._rest.result(otherwise)
        for a, b in sites(otherwise):
            if held := self._factors.get(a):
                made[a], made[b] = _mean(held, otherwise[a], otherwise[b])
        return made


class Ordered:
    """Another mean, whose LoRA factors then come by falling singular value, ready to be cut."""

    def __init__(self, inner: Mean) -> None:
        self._inner = inner

    def add(self, adapters: Mapping[str, Tensor], weight: float, sender: str = "") -> None:
        """Add to the inner mean."""
        self._inner.add(adapters, weight, sender)

    def result(self, otherwise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inner mean's products, in other factors; without updates, what was."""
        made = self._inner.result(otherwise)
        untouched = all(value is otherwise[name] for name, value in made.items())
        return made if untouched else by_singular_value(made)


def _mean(
    held: list[tuple[Tensor, Tensor, float]], old_a: Tensor, old_b: Tensor
) -> tuple[Tensor, Tensor]:
    total = sum(weight for _, _, weight in held)
    # The old A counts nothing, but gives directions where the updates have fewer than the rank.
    stacked_a = torch.cat([*(a.double() for a, _, _ in held), old_a.double()])
    shares = [b.double() * (weight / total) for _, b, weight in held]
    stacked_b = torch.cat([*shares, torch.zeros_like(old_b, dtype=torch.float64)], 1)
    like, energy = torch.zeros_like(old_a, dtype=torch.float64), 0.0
    for a, _, weight in held:
        like += a.double() * (weight / total)
        energy += float(a.double().square().sum()) * weight / total
    length = math.sqrt(energy / len(old_a)) or 1.0
    made = factorised(stacked_a, stacked_b, like, length)
    return made.a.to(old_a.dtype), made.b.to(old_b.dtype)

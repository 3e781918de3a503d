"""Averages of adapters, and the plain one: a running sum that never holds two updates at once.

theta = sum_n w_n theta_n / sum_n w_n, key by key (FedAvg, McMahan et al. 2017, arXiv 1602.05629),
over whoever held that key. Sums are kept in float64, so that the mean of equal adapters is those
adapters, and so that a mean of means differs from the flat mean by rounding only.
"""

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Size, Tensor

from elsa.errors import AdapterError


class Mean(Protocol):
    """An average of adapters that arrive one by one; see also `robust` and `product`."""

    def add(self, adapters: Mapping[str, Tensor], weight: float, sender: str = "") -> None:
        """Add adapters that count `weight` times; keys may differ between calls.

        A sender's update may come in parts, of keys that do not overlap.

        Raises:
            AdapterError: a weight that is not positive and finite, a shape that differs from an
                earlier one's, or values that are not finite; nothing is added then.
        """
        ...

    def result(self, otherwise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean of every key of `otherwise`, whose value stands where nobody sent the key.

        That value is then the very tensor. Keys, order and dtypes are those of `otherwise`.
        """
        ...


NewMean = Callable[[], Mean]


class WeightedMean:
    """The weighted mean of adapters that arrive one by one."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(
        self,
        adapters: Mapping[str, Tensor],
        weight: float,
        sender: str = "",  # noqa: ARG002
    ) -> None:
        """Add adapters that count `weight` times; raises as `Mean.add`, whoever the sender."""
        check_update(adapters, weight, {name: it.shape for name, it in self._sums.items()})
        for name, value in adapters.items():
            if name in self._sums:
                self._sums[name].add_(value.double(), alpha=weight)
                self._weights[name] += weight
            else:
                self._sums[name] = value.double() * weight
                self._weights[name] = weight

    def result(self, otherwise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean of every key of `otherwise`, whose value stands where nobody sent the key."""
        return {
            name: (self._sums[name] / self._weights[name]).to(value.dtype)
            if name in self._sums
            else value
            for name, value in otherwise.items()
        }


def check_update(adapters: Mapping[str, Tensor], weight: float, shapes: Mapping[str, Size]) -> None:
    """Refuse an update that cannot be averaged with earlier ones of these shapes.

    Raises:
        AdapterError: as `Mean.add` says.
    """
    if not 0 < weight < math.inf:
        raise AdapterError(f"weight {weight} of an update: must be positive and finite")
    for name, value in adapters.items():
        if name in shapes and shapes[name] != value.shape:
            raise AdapterError(
                f"{name}: shape {list(value.shape)} where earlier updates have {list(shapes[name])}"
            )
        if not bool(torch.isfinite(value).all()):
            raise AdapterError(f"{name}: holds NaN or infinity")

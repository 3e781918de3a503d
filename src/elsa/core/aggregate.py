"""Averages of adapters, taken as a running sum: no two updates are ever held at once.

theta = sum_n w_n theta_n / sum_n w_n, key by key (FedAvg, McMahan et al. 2017, arXiv 1602.05629),
over whoever held that key. Sums are kept in float64, so that the mean of equal adapters is those
adapters, and so that a mean of means differs from the flat mean by rounding only.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from elsa.errors import AdapterError


class WeightedMean:
    """The weighted mean of adapters that arrive one by one."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(self, adapters: Mapping[str, Tensor], weight: float) -> None:
        """Add adapters that count `weight` times; keys may differ between calls.

        Raises:
            AdapterError: a weight that is not positive and finite, a shape that differs from an
                earlier one's, or values that are not finite; nothing is added then.
        """
        if not 0 < weight < math.inf:
            raise AdapterError(f"weight {weight} of an update: must be positive and finite")
        for name, value in adapters.items():
            if name in self._sums and self._sums[name].shape != value.shape:
                raise AdapterError(
                    f"{name}: shape {list(value.shape)} where earlier updates have "
                    f"{list(self._sums[name].shape)}"
                )
            if not bool(torch.isfinite(value).all()):
                raise AdapterError(f"{name}: holds NaN or infinity")
        for name, value in adapters.items():
            if name in self._sums:
                self._sums[name].add_(value.double(), alpha=weight)
                self._weights[name] += weight
            else:
                self._sums[name] = value.double() * weight
                self._weights[name] = weight

    def result(self, otherwise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean of every key of `otherwise`, whose value stands where nobody sent the key.

        Keys, order and dtypes are those of `otherwise`.
        """
        return {
            name: (self._sums[name] / self._weights[name]).to(value.dtype)
            if name in self._sums
            else value
            for name, value in otherwise.items()
        }

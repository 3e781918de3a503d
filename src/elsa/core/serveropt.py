"""What the cloud makes of a round's mean: a step of an optimizer of its own.

FedAdam, Algorithm 2 of Reddi et al. 2021 (arXiv 2003.00295): the round's change
d = mean - theta is a gradient turned around, and

    m <- b1 m + (1 - b1) d
    v <- b2 v + (1 - b2) d^2
    theta <- theta + lr m / (sqrt(v) + tau)

from m = 0 and v = tau^2, without bias correction.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FedAdam:
    """The constants; state goes in and comes out.

    Attributes:
        learning_rate: lr; where d is far above tau, the first step is about lr in each number.
        beta1: b1, of the mean change.
        beta2: b2, of its square.
        tau: how much it adapts; large values make steps proportional to d.
    """

    learning_rate: float
    beta1: float
    beta2: float
    tau: float

    def step(
        self,
        adapters: Mapping[str, Tensor],
        mean: Mapping[str, Tensor],
        state: Mapping[str, Tensor],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Take a step from `adapters` towards `mean`.

        Args:
            adapters: theta, by name.
            mean: the round's mean; what it lacks stays as it is, and so does its state.
            state: what the last step gave; empty before the first.

        Returns:
            The new adapters, in the dtypes of the old, and the new state, float64, under
            "m/<name>" and "v/<name>".
        """
        moved, kept = dict(adapters), dict(state)
        for name in mean:
            value = adapters[name]
            start = value.double()
            change = mean[name].double() - start
            m = state.get(f"m/{name}", torch.zeros_like(start))
            v = state.get(f"v/{name}", torch.full_like(start, self.tau**2))
            m = self.beta1 * m + (1 - self.beta1) * change
            v = self.beta2 * v + (1 - self.beta2) * change.square()
            moved[name] = (start + self.learning_rate * m / (v.sqrt() + self.tau)).to(value.dtype)
            kept[f"m/{name}"], kept[f"v/{name}"] = m, v
        return moved, kept

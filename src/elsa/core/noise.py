"""Gaussian noise on what leaves a device, and what it is worth in differential privacy.

What is released of a unit is clipped about zero to a norm of C, and noise of standard deviation s
is added to each of its values. Whatever stood in the unit's place, what is clipped differs by at
most 2 C, so one release is Gaussian differential privacy with mu = 2 C / s, and k releases of one
unit are sqrt(k) mu (Dong, Roth and Su 2019, arXiv 1905.02383, corollary 3.3). The epsilon for a
delta is exact (Balle and Wang 2018, arXiv 1805.06530, theorem 8):

    delta = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu)

All of it is local: it holds against whoever sees the release itself. Units are

    a token, of its hidden state at a cut (`rows`). States depend on all tokens of a text, so a
        whole text of L tokens is L releases more;
    a text's label, of the gradient that the text sends down (`texts`): no other label enters it;
    all rows of a device, of what it changed of its adapters (`whole`; Geyer et al. 2017, arXiv
        1712.07557, with the noise at the device).

Numbers are taken for real ones: what floating point gives away (Mironov 2012) is not counted.

Shapes: T tokens, R rows of a batch at a cut, D hidden size.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import log_ndtr

from elsa.errors import ConfigError


@dataclass(frozen=True)
class Noise:
    """Clipping and noise.

    Attributes:
        norm: C, to which each unit is clipped about zero.
        ratio: s / C.
    """

    norm: float
    ratio: float

    def rows(self, states: Tensor, drawn: Tensor) -> Tensor:
        """What leaves the device; differentiable, and the noise is no part of the gradient.

        Args:
            states: [T, D].
            drawn: standard normal numbers [T, D].
        """
        clipped = self.clipped(states)
        shown: Tensor = clipped + (self.ratio * self.norm * drawn).to(states.dtype)
        return shown

    def clipped(self, states: Tensor) -> Tensor:
        """States [T, D] with norms of C at most; differentiable."""
        size = states.float().norm(dim=-1, keepdim=True).clamp(min=1e-12)
        clipped: Tensor = states * (self.norm / size).clamp(max=1).to(states.dtype)
        return clipped

    def texts(self, gradients: Tensor, sizes: Sequence[int], drawn: Tensor) -> Tensor:
        """Gradients with the rows of each text clipped together, and noise on every value.

        Args:
            gradients: [R, D].
            sizes: rows of each text; their sum is R.
            drawn: standard normal numbers [R, D].
        """
        wide = gradients.float()
        owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.as_tensor(sizes))
        energy = torch.zeros(len(sizes)).index_add_(0, owner, wide.square().sum(1))
        factor = (self.norm / energy.sqrt().clamp(min=1e-12)).clamp(max=1)
        shown = wide * factor[owner][:, None] + self.ratio * self.norm * drawn.float()
        return shown.to(gradients.dtype)

    def whole(
        self, start: Mapping[str, Tensor], end: Mapping[str, Tensor], drawn: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """`start` and what was changed of it, all tensors clipped together, with noise; float32.

        Args:
            start: tensors before.
            end: tensors after, of the same names and shapes.
            drawn: standard normal numbers, of the same names and shapes.
        """
        changed = {name: value.double() - start[name].double() for name, value in end.items()}
        size = math.sqrt(sum(float(value.square().sum()) for value in changed.values()))
        factor = min(1.0, self.norm / max(size, 1e-12))
        return {
            name: (start[name] + factor * value + self.ratio * self.norm * drawn[name]).float()
            for name, value in changed.items()
        }


def epsilon_of(ratio: float, delta: float, releases: int = 1) -> float:
    """Epsilon of so many releases of a unit, each with noise of `ratio` times the norm C.

    Who sees a release also sees whose it is, so that a unit was only drawn for some rounds counts
    by its fewer releases, and by nothing else.

    Args:
        ratio: s / C.
        delta: probability with which epsilon may fail, between 0 and 1.
        releases: how often something of the same unit leaves the device.

    Raises:
        ConfigError: a number is out of range.
    """
    if not (ratio > 0 and 0 < delta < 1 and releases >= 1):
        raise ConfigError(
            f"noise of ratio {ratio}, delta {delta}, {releases} releases; allowed: a ratio above "
            "0, a delta between 0 and 1, at least 1 release"
        )
    mu = 2 / ratio * math.sqrt(releases)
    low, high = 0.0, mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _delta_of(mu, middle) > delta else (low, middle)
    return high


def _delta_of(mu: float, epsilon: float) -> float:
    """The delta of mu-GDP at an epsilon."""
    first, second = torch.tensor([mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu]).double()
    return float(log_ndtr(first).exp() - (epsilon + log_ndtr(second)).exp())

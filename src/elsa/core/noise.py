"""Gaussian noise on what leaves a device, and what it is worth in differential privacy.

Every token's hidden state is clipped about zero to a norm of C, and noise of standard
deviation s is added to each of its values. Between any two tokens of a position the clipped states
differ by at most 2 C, so one release is Gaussian differential privacy with mu = 2 C / s, and k
releases of one text are sqrt(k) mu (Dong, Roth and Su 2019, arXiv 1905.02383, corollary 3.3). The
epsilon for a delta is exact (Balle and Wang 2018, arXiv 1805.06530, theorem 8):

    delta = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu)

This is local and for one token's state at a time. States at a cut depend on all tokens of a text,
so the guarantee for a whole text of L tokens is that of L releases more.

Shapes: T tokens, D hidden size.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import log_ndtr

from elsa.errors import ConfigError


@dataclass(frozen=True)
class Noise:
    """Clipping and noise.

    Attributes:
        norm: C, to which each state is clipped about zero.
        ratio: s / C.
    """

    norm: float
    ratio: float

    def apply(self, states: Tensor, drawn: Tensor) -> Tensor:
        """What leaves the device; differentiable, and the noise is no part of the gradient.

        Args:
            states: [T, D].
            drawn: standard normal numbers [T, D].
        """
        size = states.float().norm(dim=-1, keepdim=True).clamp(min=1e-12)
        clipped = states * (self.norm / size).clamp(max=1).to(states.dtype)
        shown: Tensor = clipped + (self.ratio * self.norm * drawn).to(states.dtype)
        return shown


def epsilon_of(ratio: float, delta: float, releases: int = 1) -> float:
    """Epsilon of so many releases, each with noise of `ratio` times the clipping norm C.

    Args:
        ratio: s / C.
        delta: probability with which epsilon may fail, between 0 and 1.
        releases: how often the same token's state leaves the device.

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

"""What a poisoned device makes of what an honest one would have sent, as plain formulas.

A device speaks for its own adapters (bottom, top, head) in its update, and steers the trunk
adapters at its edge server by g2, the gradients that it sends over hop 3. So an attack is a formula
for each; and as g1 is linear in g2, a third takes back from the returned g1 what the attack did to
it, so that the attacker's own training goes on. `docs/attacks.md` says which attacker this is.

Symbols: s is an adapter tensor as the device received it, t as honest training would have left it;
z is drawn from N(0, 1), of the tensor's shape.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor


class Forgery(Protocol):
    """An attack on what a device sends."""

    def adapters(self, start: Tensor, trained: Tensor, draw: Generator) -> Tensor:
        """The tensor to submit, from s and t; float32."""
        ...

    def gradient(self, g2: Tensor, draw: Generator) -> Tensor:
        """What to send for g2 [T, D]; in its dtype."""
        ...

    def returned(self, g1: Tensor) -> Tensor:
        """The g1 [T, D] to train the bottom on, from the one that came back."""
        ...


@dataclass(frozen=True)
class Stretch:
    """Moves `factor` times as far: s + factor (t - s), and factor g2.

    Above 1 it is a boosted update (Bagdasaryan et al. 2020, arXiv 1807.00459), below 0 a flipped
    one, which climbs where honest devices descend.

    Attributes:
        factor: not 0.
    """

    factor: float

    def adapters(self, start: Tensor, trained: Tensor, draw: Generator) -> Tensor:  # noqa: ARG002
        """s + factor (t - s)."""
        return start + self.factor * (trained - start)

    def gradient(self, g2: Tensor, draw: Generator) -> Tensor:  # noqa: ARG002
        """factor g2."""
        return self.factor * g2

    def returned(self, g1: Tensor) -> Tensor:
        """g1 / factor: the honest one, as backward passes are linear."""
        return g1 / self.factor


@dataclass(frozen=True)
class Noise:
    """Sends noise of `scale` times the norm of what honesty would have sent.

    Attributes:
        scale: above 0.
    """

    scale: float

    def adapters(self, start: Tensor, trained: Tensor, draw: Generator) -> Tensor:  # noqa: ARG002
        """scale |t| z / |z|."""
        return self.scale * _like(trained, draw)

    def gradient(self, g2: Tensor, draw: Generator) -> Tensor:
        """scale |g2| z / |z|."""
        return (self.scale * _like(g2, draw)).to(g2.dtype)

    def returned(self, g1: Tensor) -> Tensor:
        """g1 as it came: of noise nothing can be taken back."""
        return g1


@dataclass(frozen=True)
class FreeRide:
    """Sends back what it received, with a little noise, and gradients of zero.

    Attributes:
        noise: norm of what is added, as a part of the norm of s.
    """

    noise: float

    def adapters(self, start: Tensor, trained: Tensor, draw: Generator) -> Tensor:  # noqa: ARG002
        """s + noise |s| z / |z|."""
        return start + self.noise * _like(start, draw) if self.noise else start

    def gradient(self, g2: Tensor, draw: Generator) -> Tensor:  # noqa: ARG002
        """Zero: AdamW at the edge then leaves the trunk where it is."""
        return torch.zeros_like(g2)

    def returned(self, g1: Tensor) -> Tensor:
        """g1 as it came, which is zero."""
        return g1


def _like(values: Tensor, draw: Generator) -> Tensor:
    """Noise of the same shape and norm, float32."""
    noise = torch.randn(values.shape, generator=draw)
    size: Tensor = torch.linalg.vector_norm(values.float()) / torch.linalg.vector_norm(noise)
    return noise * size

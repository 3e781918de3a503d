"""What an attacker can do with a defence that it knows, but for the secrets: do it itself.

An adaptive attacker runs public text through the public bottom, defends the states as a device
does, with secrets of its own, and learns from the result how to read the real ones.

Shapes: T tokens of some texts without padding, D hidden size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from elsa.core.codec import Codec, Frame, Identity
from elsa.core.noise import Noise
from elsa.core.secret import SecretSeed
from elsa.core.ssop import Fresh, Rotation, Subspace


@dataclass(frozen=True)
class Turn:
    """What is known of a rotation: how many directions, how far, about what."""

    rank: int
    angle: float
    about: Literal["mean", "origin"]


@dataclass(frozen=True)
class Defence:
    """What a device does to its states before the edge sees them.

    Attributes:
        codec: makes the codec of hop 1, which remembers nothing yet.
        turn: the rotation, if there is one.
        noise: the noise, if there is any; added after the rotation.
        fresh: how long a rotation lives; see `core.ssop`.
        gradients: the noise on gradients at the second cut, if there is any.
    """

    codec: Callable[[], Codec] = Identity
    turn: Turn | None = None
    noise: Noise | None = None
    fresh: Fresh = "fixed"
    gradients: Noise | None = None

    @property
    def exact(self) -> bool:
        """Whether it changes nothing."""
        plain = self.turn is None and self.noise is None
        return plain and isinstance(self.codec(), Identity)

    def imitate(self, states: Tensor, lengths: Sequence[int], seed: int) -> Tensor:
        """States [T, D] as an edge would see them if a device sent them, with another secret.

        Args:
            states: of some texts in a row.
            lengths: tokens of each text.
            seed: of rotation, noise and codec; another seed, another secret.
        """
        if self.turn is not None:
            key = SecretSeed(f"an attacker's own, {seed:032d}".encode())
            about = self.turn.about
            subspace = Subspace.fit(states, self.turn.rank, key.derive("fit"), about)
            states = Rotation.draw(subspace, self.turn.angle, key.derive("turn")).forward(states)
        if self.noise is not None:
            generator = torch.Generator().manual_seed(seed)
            states = self.noise.rows(states, torch.randn(states.shape, generator=generator))
        codec, frame = self.codec(), Frame(tuple(lengths), seed)
        return codec.decode(codec.encode(states, frame), frame).float()


NONE = Defence()

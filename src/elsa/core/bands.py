"""Axes on which hidden states vary little beyond the first few, cut into bands.

Hidden states vary in few directions, which follow from the public model. On those axes, bands of
neighbours have very different energies, so each can get the bits that it deserves. Within a band
values are rotated (`core.hadamard`), always alike, so that both turns are one product.

Shapes: T tokens, D hidden size, b axes of a band.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from elsa.core.hadamard import mix
from elsa.errors import ConfigError

_ROWS = 32
"""Products take whole multiples of so many tokens: a bfloat16 kernel is compiled for each size."""


@dataclass(frozen=True)
class Bands:
    """Axes that both ends know, and how many neighbours make a band.

    Attributes:
        axes: [D, D] orthonormal columns, by falling variance; the same bits at both ends.
        width: b, divides D.
        product: dtype in which values are turned, each end's own business: bfloat16 is twice as
            fast where hardware has it, and its error is far below that of the bits.
    """

    axes: Tensor
    width: int
    product: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        hidden = len(self.axes)
        if tuple(self.axes.shape) != (hidden, hidden):
            raise ConfigError(f"fill: axes of shape {list(self.axes.shape)}; they must be square")
        if self.width < 1 or hidden % self.width:
            raise ConfigError(f"fill: bands of {self.width} do not divide hidden size {hidden}")

    @cached_property
    def name(self) -> str:
        """Width and a digest of the axes."""
        values = self.axes.float().contiguous().numpy().tobytes()
        return f"{self.width}:{hashlib.blake2b(values, digest_size=4).hexdigest()}"

    def turn(self, values: Tensor) -> Tensor:
        """[T, D] onto the axes, each band rotated within itself."""
        return self._times(values, self._basis)

    def turn_back(self, turned: Tensor) -> Tensor:
        """The inverse of `turn`."""
        return self._times(turned, self._basis.T)

    @cached_property
    def _basis(self) -> Tensor:
        mixed = mix(self.axes.float().reshape(-1, self.width))
        return mixed.view(self.axes.shape).to(self.product)

    def _times(self, values: Tensor, matrix: Tensor) -> Tensor:
        tokens = len(values)
        if self.product == torch.float32:
            return values @ matrix
        rows = torch.zeros(-(-tokens // _ROWS) * _ROWS, len(matrix), dtype=self.product)
        rows[:tokens] = values
        return (rows @ matrix)[:tokens].float()

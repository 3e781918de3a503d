"""The first axes of hidden states, apart from all others.

Hidden states vary in few directions, which follow from the public model. On those axes their values
are much larger than on the rest, so both can get the bits that they deserve: the first quarter of
the axes is a band, the other three quarters are, and what lies on no axis is.

Turning onto r axes and something orthogonal is a product of r Householder reflections, which costs
2 r / D of a full turn. Within a band values are rotated (`core.cells`), always alike:

    turn(x) = x (I - V T V') R = x R - (x V T) (V' R)

with V T V' in compact WY form (Schreiber and Van Loan 1989, SIAM J. Sci. Stat. Comput. 10) and R
the rotation within bands.

Shapes: T tokens, D hidden size, r axes.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from elsa.core.cells import Cells
from elsa.errors import ConfigError

_ORTHONORMAL = 1e-3


@dataclass(frozen=True, eq=False)
class Bands:
    """Axes that both ends know.

    Attributes:
        axes: [D, r] orthonormal columns, by falling variance; the same bits at both ends.
    """

    axes: Tensor

    def __post_init__(self) -> None:
        hidden, count = self.axes.shape
        if not 1 <= count <= hidden:
            raise ConfigError(f"fill: {count} axes; allowed: 1 to the hidden size, {hidden}")
        off = self.axes.T @ self.axes - torch.eye(count)
        if not off.abs().max() <= _ORTHONORMAL:
            raise ConfigError("fill: axes that are not orthonormal")

    @cached_property
    def name(self) -> str:
        """Number and a digest of the axes."""
        values = self.axes.float().contiguous().numpy().tobytes()
        return f"{self.axes.shape[1]}:{hashlib.blake2b(values, digest_size=4).hexdigest()}"

    @cached_property
    def cells(self) -> Cells:
        """The bands of a token: r / 4, 3 r / 4 and D - r values, less those that would be empty."""
        hidden, count = self.axes.shape
        widths = (count // 4, count - count // 4, hidden - count)
        return Cells(tuple(width for width in widths if width))

    def turn(self, values: Tensor, *, inside: bool = False) -> Tensor:
        """[T, D] float32 onto the axes, each band rotated within itself.

        Args:
            values: the values.
            inside: whether they may be overwritten, which is quicker.
        """
        onto, off = self._reflections
        along = values @ onto
        return self.cells.rotate(values, inside=inside).addmm_(along, off, alpha=-1)

    def turn_back(self, turned: Tensor) -> Tensor:
        """The inverse of `turn`; overwrites what it is given."""
        onto, off = self._reflections
        along = turned @ off.T
        return self.cells.rotate(turned, inside=True).addmm_(along, onto.T, alpha=-1)

    @cached_property
    def _reflections(self) -> tuple[Tensor, Tensor]:
        """V T [D, r] and V' R [r, D]."""
        packed, scales = torch.geqrf(self.axes.double())
        vectors = packed.tril(-1)
        vectors.diagonal().fill_(1)
        # T by its inverse, diag(1 / tau) + the strict upper part of V' V; tau = 0 reflects nothing.
        vectors *= scales != 0
        inverse = (vectors.T @ vectors).triu(1)
        inverse.diagonal().copy_(torch.where(scales == 0, 1, 1 / scales))
        onto = vectors @ torch.linalg.inv(inverse)
        off = self.cells.rotate(vectors.T.float().contiguous())
        return onto.float().contiguous(), off

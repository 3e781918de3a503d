"""How a token is cut into cells, and the rotation of each.

A cell of b values is rotated by R = Hartley(m) (x) Hadamard(b / m), m the odd factor of b. Both are
flat, symmetric and orthogonal (`core.hadamard`), so R is its own inverse.

Shapes: T tokens, D hidden size, n cells of a token, b values of a cell.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elsa.core import kernels
from elsa.core.bits import packed_size
from elsa.core.hadamard import hartley


@dataclass(frozen=True)
class Cells:
    """Neighbouring pieces of a token.

    Attributes:
        widths: b of each; they sum to D.
    """

    widths: tuple[int, ...]

    @cached_property
    def spans(self) -> NDArray[np.int64]:
        """[n, 7]: where each begins and ends, its odd factor, and bytes at one to four bits."""
        rows, begin = [], 0
        for width in self.widths:
            one, two, four = (packed_size(width, bits) for bits in (1, 2, 4))
            rows.append((begin, begin + width, _odd(width), one, two, one + two, four))
            begin += width
        return np.array(rows, np.int64)

    @cached_property
    def mixers(self) -> NDArray[np.float32]:
        """[n, m, m]: the Hartley matrix of each, in the room of the largest."""
        odd = [_odd(width) for width in self.widths]
        found = np.zeros((len(odd), max(odd), max(odd)), np.float32)
        for place, size in enumerate(odd):
            found[place, :size, :size] = hartley(size)
        return found

    def __len__(self) -> int:
        return len(self.widths)

    def rotate(self, values: Tensor) -> Tensor:
        """Float32 values [T, D], contiguous, with each cell rotated; its own inverse."""
        turned = torch.empty_like(values)
        kernels.mix(values.numpy(), self.spans, self.mixers, turned.numpy())
        return turned


def _odd(width: int) -> int:
    return width // (width & -width)

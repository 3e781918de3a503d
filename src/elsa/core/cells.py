"""How a token is cut into cells, and the rotation of each.

A cell of b values is rotated by R = Hartley(m) (x) Hadamard(b / m), m the odd factor of b. Both are
flat, symmetric and orthogonal (`core.hadamard`), so R is its own inverse.

Shapes: T tokens, D hidden size, n cells of a token, b values of a cell.
"""

import threading
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from elsa.core import kernels
from elsa.core.bits import packed_size
from elsa.core.compiled import ROOM, SHAPE, Fixed
from elsa.core.hadamard import hartley


@dataclass(frozen=True)
class Cells:
    """Neighbouring pieces of a token.

    Attributes:
        widths: b of each; they sum to D.
    """

    widths: tuple[int, ...]

    @cached_property
    def shape(self) -> Fixed:
        """`spans` and `mixers`, as the loops take them."""
        return Fixed(SHAPE, (self.spans, self.mixers))

    @cached_property
    def spans(self) -> Tensor:
        """[n, 7] int64: where each begins and ends, its odd factor, bytes at one to four bits."""
        rows, begin = [], 0
        for width in self.widths:
            one, two, four = (packed_size(width, bits) for bits in (1, 2, 4))
            rows.append((begin, begin + width, _odd(width), one, two, one + two, four))
            begin += width
        return torch.tensor(rows)

    @cached_property
    def mixers(self) -> Tensor:
        """[n, m, m] float32: the Hartley matrix of each, in the room of the largest."""
        odd = [_odd(width) for width in self.widths]
        found = torch.zeros(len(odd), max(odd), max(odd))
        for place, size in enumerate(odd):
            found[place, :size, :size] = hartley(size)
        return found

    def __len__(self) -> int:
        return len(self.widths)

    def rotate(self, values: Tensor, *, inside: bool = False) -> Tensor:
        """Float32 values [T, D], contiguous, with each cell rotated; its own inverse.

        Args:
            values: the values.
            inside: whether they may be overwritten, which is quicker.
        """
        turned = values if inside else torch.empty_like(values)
        kernels.mix(values, self.shape, room(values.shape[1]), turned)
        return turned


class _Rooms(threading.local):
    def __init__(self) -> None:
        self.of: dict[int, Fixed] = {}


_ROOMS = _Rooms()


def room(hidden: int) -> Fixed:
    """What the loops work in for D = `hidden`; each thread has its own."""
    found = _ROOMS.of.get(hidden)
    if found is None:
        codes = torch.empty(2, hidden + kernels.SPARE, dtype=torch.uint8)
        parts = (torch.empty(3, hidden), codes[0], codes[1], torch.empty(16))
        found = _ROOMS.of[hidden] = Fixed(ROOM, parts)
    return found


def _odd(width: int) -> int:
    return width // (width & -width)

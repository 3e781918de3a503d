"""The levels of least squared error for a normal distribution (Max 1960; Lloyd 1982).

Values are taken in units of their root mean square. Shapes: n values of one block, b bits.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from elsa.core.bits import look_up

BITS = (1, 2, 3, 4)
_CELLS = 256
_REACH = {1: 1.0, 2: 2.0, 3: 2.6, 4: 3.2}
"""How far the table that finds a level reaches; beyond is the last level."""


@cache
def levels(bits: int) -> NDArray[np.float64]:
    """The levels [2^b], by Lloyd's iteration: each the mean of its cell."""
    found = np.linspace(-2, 2, 2**bits)
    change = 1.0
    while change > 1e-12:
        better, _ = _cells(found)
        change = float(np.abs(better - found).max())
        found = better
    return found


@cache
def distortion(bits: int) -> float:
    """Part of the energy of normal values that b bits leave out; 1 for none."""
    if not bits:
        return 1.0
    found = levels(bits)
    return float(1 - (_cells(found)[1] * found**2).sum())


def encode(values: Tensor, inverse: Tensor, bits: int) -> NDArray[np.uint8]:
    """The codes [R * D] of values [R, D], given the inverse [R] of each row's root mean square."""
    cell = _CELLS / (2 * _REACH[bits])
    cells = whole(values * (inverse * cell)[:, None], _CELLS / 2, _CELLS - 1)
    return np.frombuffer(cells.translate(_codes_of_cells(bits)), np.uint8)


def decode(payload: bytes, bits: int, count: int) -> NDArray[np.float32]:
    """The levels of `count` packed codes, writable."""
    return look_up(payload, levels(bits).astype(np.float32), count)


def whole(values: Tensor, offset: float, last: int) -> bytearray:
    """floor(values + offset), held inside [0, last], as bytes; takes `values` as its own."""
    held = values.add_(offset).clamp_(0, last + 0.5)
    return bytearray(held.view(-1).numpy().astype(np.uint8))


def _cells(found: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and probability of the cell of each level."""
    edges = [-math.inf, *((found[1:] + found[:-1]) / 2), math.inf]
    mass = np.diff([math.erf(edge / math.sqrt(2)) / 2 for edge in edges])
    density = [math.exp(-(edge**2) / 2) / math.sqrt(2 * math.pi) for edge in edges]
    return -np.diff(density) / mass, mass


@cache
def _codes_of_cells(bits: int) -> bytes:
    """The nearest level of the middle of each cell."""
    middles = ((np.arange(_CELLS) + 0.5) / _CELLS * 2 - 1) * _REACH[bits]
    nearest = np.abs(middles[:, None] - levels(bits)[None, :]).argmin(1)
    return bytes(nearest.tolist())

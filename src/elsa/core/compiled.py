"""How loops are compiled, and the types of what they work on.

What water-filling (`core.waterfill`) and its memory (`core.temporal`) do to 200 x 384 values is
many small steps; one by one, each as a pass over memory and a call, they took a tenth of a training
step. They are compiled once for each processor and kept in numba's cache; where nothing can be
kept, each process compiles them again. Sums are taken in the order that is written, on every
machine.

Numba takes time and memory, so it is imported only by what needs it. It notices changes of the file
of a compiled loop, and of no other: a loop and its parts stay in one file.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba import types

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

BYTES = types.Array(types.uint8, 1, "C", readonly=True)
CODES = types.uint8[::1]
FLOATS = types.float64[::1]
ROWS = types.float32[:, ::1]
CELLS = types.int64[:, ::1]


def compiled(*signature: Any) -> Callable[[Kernel], Kernel]:
    """Compile for one signature now, or take it from the cache."""

    def wrap(kernel: Kernel) -> Kernel:
        options = {"error_model": "numpy", "nogil": True}
        try:
            made: Kernel = numba.njit(signature, cache=True, **options)(kernel)
        except Exception:  # nowhere to keep it, or what was kept is broken
            made = numba.njit(signature, **options)(kernel)
        return made

    return wrap


def inner(kernel: Kernel) -> Kernel:
    """A part of loops in the same file, compiled with each."""
    made: Kernel = numba.njit(error_model="numpy")(kernel)
    return made

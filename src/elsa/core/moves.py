"""Fingerprints as directions: which way a device moved what the model makes of public texts.

The mean of the pooled final states of Q probes, after a device's edge round less before it, seen on
d random axes that all share (Johnson and Lindenstrauss 1984: angles stay nearly as they are), as a
unit vector. Two devices are as far apart as these turn from each other. What ELSA (arXiv
2601.13824) looks at is `core.fingerprint`; docs/clustering.md says what was measured of both: most
of what training changes lies off the principal axes of the base model, and where devices differ
in the spread of their states, it is noise.

Shapes: Q probes, D hidden size, d axes, N moves.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from elsa.errors import BehaviourError

_AXES = int.from_bytes(b"axes")
"""Keeps the draw of the axes apart from every other draw of the seed."""


def shared_axes(hidden: int, dimensions: int, seed: int) -> Tensor:
    """Orthonormal columns [D, d], float64, drawn by the seed; d is at most D."""
    numbers = np.random.default_rng((seed, _AXES)).standard_normal(
        (hidden, min(dimensions, hidden))
    )
    axes: Tensor = torch.linalg.qr(torch.from_numpy(numbers))[0]
    return axes


def move(before: Tensor, after: Tensor, axes: Tensor) -> Tensor:
    """The direction [d] in which states [Q, D] moved, float64; zero where they did not.

    Raises:
        BehaviourError: a value is not finite.
    """
    mean = (after.double() - before.double()).mean(0)
    if not bool(torch.isfinite(mean).all()):
        raise BehaviourError("its answers to the probes hold NaN or infinity; its model diverged")
    return torch.nn.functional.normalize(mean @ axes, dim=0)


def packed_move(direction: Tensor) -> bytes:
    """The d numbers in half precision, little endian."""
    half: bytes = direction.numpy().astype("<f2").tobytes()
    return half


def unpacked_moves(packed: Sequence[bytes], dimensions: int) -> Tensor:
    """Directions [N, d] that `packed_move` made, float64.

    Raises:
        BehaviourError: one is of another length than the others or than so many numbers, or holds
            what is no direction.
    """
    sizes = {len(it) for it in packed}
    if len(sizes) > 1 or any(size % 2 or not 0 < size <= 2 * dimensions for size in sizes):
        raise BehaviourError(
            f"fingerprints of {sorted(sizes)} bytes; allowed: one length, of up to {dimensions} "
            "numbers of two bytes"
        )
    numbers = np.stack([np.frombuffer(it, "<f2") for it in packed]) if packed else np.zeros((0, 0))
    moves = torch.from_numpy(numbers.astype(np.float64))
    lengths = moves.square().sum(1)
    if not bool(((lengths == 0) | ((lengths - 1).abs() < 0.1)).all()):
        raise BehaviourError("a fingerprint that is no direction")
    return moves


def angles(moves: Tensor) -> Tensor:
    """1 less the cosine between every two directions [N, d]: [N, N], 0 to 2, float64.

    Who did not move is at a right angle to all who did, and like all others who did not.
    """
    units = torch.nn.functional.normalize(moves, dim=1)
    still = ~units.any(1)
    apart = (1 - units @ units.T).clamp(0, 2)
    apart[still[:, None] & still] = 0.0
    return ((apart + apart.T) / 2).fill_diagonal_(0)

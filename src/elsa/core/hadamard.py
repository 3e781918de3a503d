"""A random rotation that spreads every value over all dimensions, in O(D sqrt D) a token.

After it a token's values are near Gaussian, whatever outlier dimensions it had, which is what low
bits need (Suresh et al. 2017, arXiv 1611.00429; QuaRot, Ashkboos et al. 2024, arXiv 2404.00456).

    forward(x) = (x * s) R        inverse(y) = (y R) * s        R = A (x) B

s in {-1, 1}^D is drawn from the frame's seed. R is a Kronecker product of Hadamard matrices, with
one discrete Hartley matrix for the odd factor of D: 384 = 128 * 3, 576 = 64 * 9. Both kinds are
flat, symmetric and orthogonal, so R is its own inverse. Two small matrix products are faster here
than log2 D passes of butterflies.

Shapes: T tokens, D = a * b hidden size.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from elsa.core.codec import Frame
from elsa.errors import CodecError

TAG = 4
"""Bytes that tell one seed from another."""
_SIGNS = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)
"""[256, 8]: the signs that a byte stands for."""


@dataclass(frozen=True)
class Rotate:
    """The rotation as a transform; linear, orthogonal: its adjoint is its inverse."""

    @property
    def name(self) -> str:
        """Name on the wire."""
        return "rotate"

    def width(self, hidden: int) -> int:
        """As wide as it was."""
        return hidden

    def side_size(self, tokens: int, hidden: int) -> int:  # noqa: ARG002
        """Bytes of the seed's tag."""
        return TAG

    def forward(self, values: Tensor, frame: Frame) -> tuple[Tensor, bytes]:
        """Rotate [T, D]."""
        signs = random_signs(frame.seed, values.shape[1])
        return mix(values * signs), seed_tag(frame.seed, values.shape[1])

    def inverse(self, values: Tensor, side: bytes, hidden: int, frame: Frame) -> Tensor:
        """Rotate back; raises CodecError where the sender drew from another seed."""
        check_seed(side, frame.seed, hidden, self.name)
        return mix(values).mul_(random_signs(frame.seed, hidden))


def mix(values: Tensor) -> Tensor:
    """[T, D] times the symmetric orthogonal matrix R; its own inverse."""
    tokens, hidden = values.shape
    left, right = _factors(hidden)
    halfway = values.reshape(-1, len(right)) @ right
    return torch.matmul(left, halfway.view(tokens, len(left), len(right))).view(tokens, hidden)


def random_signs(seed: int, count: int) -> Tensor:
    """[count] float32 of -1 and 1, a function of the seed alone."""
    drawn = b"".join(
        hashlib.blake2b(f"signs {seed} {place}".encode()).digest() for place in range(0, count, 512)
    )
    bytes_ = np.frombuffer(drawn, np.uint8, -(-count // 8))
    return torch.from_numpy(_SIGNS.take(bytes_, axis=0).reshape(-1)[:count])


def seed_tag(seed: int, hidden: int) -> bytes:
    """What is sent along with values that mean nothing under another seed or hidden size."""
    return hashlib.blake2b(f"{seed} {hidden}".encode(), digest_size=TAG).digest()


def check_seed(tag: bytes, seed: int, hidden: int, codec: str) -> None:
    """Refuse values that mean nothing here; raises CodecError."""
    if tag != seed_tag(seed, hidden):
        raise CodecError(
            f"{codec}: the packet was made from another seed or hidden size than this side's; "
            "the peers are out of step or run with different seeds"
        )


def hartley(size: int) -> Tensor:
    """The discrete Hartley matrix [size, size] in float64: (cos + sin)(2 pi i j / size)."""
    place = torch.arange(size, dtype=torch.float64)
    angle = 2 * math.pi * (torch.outer(place, place) % size) / size
    return (angle.cos() + angle.sin()) / math.sqrt(size)


@cache
def _factors(hidden: int) -> tuple[Tensor, Tensor]:
    """A [a, a] and B [b, b] with a * b = D: b a power of two near sqrt(D), a the rest."""
    even = hidden & -hidden
    right = min(even, 2 ** round(math.log2(hidden) / 2 + 0.25))
    left = hidden // right
    odd = hidden // even
    mixed = torch.kron(_hadamard(left // odd), hartley(odd))
    return mixed.float(), _hadamard(right).float()


def _hadamard(size: int) -> Tensor:
    """Sylvester's matrix [size, size] in float64, size a power of two, scaled to be orthogonal."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), matrix)
    return matrix / math.sqrt(size)

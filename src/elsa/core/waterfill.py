"""As many bits for each token as it deserves, for a given error of the whole tensor.

A few texts of a batch carry most of its gradient (the ones the model gets wrong), and few tokens
change much between epochs: equal bits for all would waste most of them. For values of a token that
are near Gaussian, as they are after the rotation of `core.hadamard`, b bits leave the part d(b) of
its energy e_t out (`core.gauss`). The bits b_t are the fewest with

    sum_t d(b_t) e_t <= error^2 sum_t e_t,        b_t in {0, 1, 2, 3, 4}

which is reverse water-filling (Cover and Thomas, Elements of Information Theory, 10.3.3) in whole
bits: as d is convex, taking the best gain for a bit first is optimal.

    payload = seed's tag, 4 bytes | b_t, 3 bits each | bfloat16 scale of each token with b_t > 0 |
              codes of the tokens of one bit | of two | of three | of four

Dropped tokens decode to zero, and all levels are the means of what they stand for, so what is
decoded is never longer than what was encoded.

Shapes: T tokens, D hidden size.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elsa.core import gauss
from elsa.core.bits import pack, packed_size, unpack
from elsa.core.codec import Frame, Packet, check_floats, take_values
from elsa.core.hadamard import TAG, check_seed, mix, random_signs, seed_tag
from elsa.errors import CodecError, ConfigError

_CHOICE = 3
"""Bits that say how many bits a token has."""
_LARGEST = 1e30
_SMALLEST = 1e-30


@dataclass(frozen=True)
class WaterFill:
    """The coder.

    Attributes:
        error: norm of what may be left out, as a part of the norm of all; 0.1 to below 1.
    """

    error: float

    def __post_init__(self) -> None:
        if not 0.1 <= self.error < 1:
            raise ConfigError(f"fill: error = {self.error}; allowed: 0.1 to below 1")

    @property
    def name(self) -> str:
        """Name on the wire."""
        return f"fill:{self.error}"

    def encode(self, values: Tensor, frame: Frame, energy: float | None = None) -> Packet:
        """Encode [T, D].

        Args:
            values: what to encode.
            frame: of it.
            energy: that the error is a part of; None takes that of the values.

        Raises:
            CodecError: values that are not finite, or beyond 1e18.
        """
        exact, dtype = take_values(values, self.name, frame)
        energies = token_energies(exact, self.name)
        allowed = self.error**2 * (energies.sum() if energy is None else energy)
        bits = fewest_bits(energies, allowed)
        order, starts = _groups(bits)
        chosen = exact[torch.from_numpy(order)]
        turned = mix(chosen * random_signs(frame.seed, exact.shape[1]))
        scales = (torch.linalg.vector_norm(chosen, dim=1) / math.sqrt(exact.shape[1])).bfloat16()
        self._check_scales(scales)
        inverse = 1 / torch.where(scales < _SMALLEST, math.inf, scales.float())
        parts = [seed_tag(frame.seed, exact.shape[1]), pack(bits, _CHOICE), _raw(scales)]
        for count, start, end in zip(gauss.BITS, starts, starts[1:], strict=False):
            if end > start:
                codes = gauss.encode(turned[start:end], inverse[start:end], count)
                parts.append(pack(codes, count))
        return Packet(self.name, dtype, tuple(values.shape), b"".join(parts))

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D]; raises CodecError on a packet that does not fit."""
        dtype = check_floats(packet, self.name, frame)
        tokens, hidden = packet.shape
        order, starts = _groups(self.bits_of(packet))
        check_seed(packet.payload[:TAG], frame.seed, hidden, self.name)
        head = TAG + packed_size(tokens, _CHOICE)
        sizes = [
            packed_size((end - start) * hidden, count)
            for count, start, end in zip(gauss.BITS, starts, starts[1:], strict=False)
        ]
        body = head + 2 * len(order)
        if len(packet.payload) != body + sum(sizes):
            raise CodecError(
                f"{self.name}: {len(packet.payload)} bytes where its tokens take "
                f"{body + sum(sizes)}"
            )
        whole = torch.zeros(tokens, hidden)
        if not len(order):
            return whole.to(dtype)
        scales = torch.frombuffer(bytearray(packet.payload[head:body]), dtype=torch.bfloat16)
        self._check_scales(scales)
        rows = torch.empty(len(order), hidden)
        for count, start, end, size in zip(gauss.BITS, starts, starts[1:], sizes, strict=False):
            if end > start:
                found = gauss.decode(
                    packet.payload[body : body + size], count, (end - start) * hidden
                )
                rows[start:end] = torch.from_numpy(found).view(-1, hidden)
            body += size
        rows.mul_(scales.float()[:, None])
        whole[torch.from_numpy(order)] = mix(rows) * random_signs(frame.seed, hidden)
        return whole.to(dtype)

    def bits_of(self, packet: Packet) -> NDArray[np.uint8]:
        """How many bits [T] each token was given; raises CodecError where it does not say."""
        tokens = packet.shape[0]
        told = packet.payload[TAG : TAG + packed_size(tokens, _CHOICE)]
        if len(told) < packed_size(tokens, _CHOICE):
            raise CodecError(f"{self.name}: {len(packet.payload)} bytes for {tokens} tokens")
        bits = unpack(told, _CHOICE, tokens)
        if bits.max(initial=0) > gauss.BITS[-1]:
            raise CodecError(f"{self.name}: a token of {bits.max()} bits; allowed: 0 to 4")
        return bits

    def _check_scales(self, scales: Tensor) -> None:
        if scales.numel() and not bool(((scales >= 0) & (scales <= _LARGEST)).all()):
            raise CodecError(
                f"{self.name}: a scale is NaN, negative or beyond {_LARGEST}; the sender's "
                "training has diverged"
            )


def fewest_bits(energies: NDArray[np.float64], allowed: float) -> NDArray[np.uint8]:
    """The fewest bits [T] that leave out at most `allowed` of the energy; four each if none do."""
    steps = -np.diff([gauss.distortion(bits) for bits in (0, *gauss.BITS)])
    gains = energies[:, None] * steps
    falling = np.sort(gains, axis=None)[::-1]
    left = energies.sum() - np.cumsum(falling)
    taken = int(np.searchsorted(-left, -allowed))  # the first after which little enough is left
    if energies.sum() <= allowed:
        return np.zeros(len(energies), np.uint8)
    least = falling[min(taken, len(falling) - 1)]
    bits: NDArray[np.uint8] = (gains >= least).sum(1).astype(np.uint8)
    return bits


def token_energies(values: Tensor, codec: str) -> NDArray[np.float64]:
    """Sum of squares of each token of [T, D]; raises CodecError where one is not finite."""
    norms = torch.linalg.vector_norm(values, dim=1)
    energies: NDArray[np.float64] = norms.double().square().numpy()
    if not np.isfinite(energies).all():
        raise CodecError(f"{codec}: values that are not finite; training has diverged")
    return energies


def _groups(bits: NDArray[np.uint8]) -> tuple[NDArray[np.int64], list[int]]:
    """Tokens that are sent, fewest bits first, and where those of each number of bits begin."""
    order = np.argsort(bits, kind="stable")
    ends = np.searchsorted(bits[order], gauss.BITS, side="right")
    dropped = int((bits == 0).sum())
    return order[dropped:], [0, *(int(end) - dropped for end in ends)]


def _raw(scales: Tensor) -> bytes:
    return scales.view(torch.uint8).numpy().tobytes() if len(scales) else b""

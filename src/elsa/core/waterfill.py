"""As many bits for each part of a tensor as it deserves, for a given error of the whole.

A few texts of a batch carry most of its gradient (the ones the model gets wrong), few tokens change
much between epochs, and hidden states vary in few directions: equal bits for all would waste most
of them. Values are turned onto axes that both ends know, if there are any, and cut into cells:
bands of b neighbouring axes of a token, or whole tokens. After the rotation of `core.hadamard` the
values of a cell are near Gaussian, and B bits leave the part d(B) of its energy e out
(`core.gauss`). The bits are the fewest with

    sum_c d(B_c) e_c <= error^2 sum_c e_c,        B_c in {0, 1, 2, 3, 4}

which is reverse water-filling (Cover and Thomas, Elements of Information Theory, 10.3.3) in whole
bits: as d is convex, taking the best gain for a bit first is optimal.

    payload = seed's tag, 4 bytes | largest scale, float32 | B_c, 3 bits each |
              scale of each cell with B_c > 0, in eighths of an octave below the largest, 1 byte |
              codes of the cells of one bit | of two | of three | of four

Dropped cells decode to zero.

Shapes: T tokens, D hidden size, b values of a cell, C = T D / b cells.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

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
"""Bits that say how many bits a cell has."""
_LARGEST = 1e30
_STEPS = 8
"""Scales an octave."""
_HEAD = TAG + 4


@dataclass(frozen=True, eq=False)
class WaterFill:
    """The coder.

    Attributes:
        error: norm of what may be left out, as a part of the norm of all; 0.1 to below 1.
        band: b, values of a cell; 0 takes a token's.
        axes: [D, D] orthonormal columns that both ends know, by falling variance; None turns
            nothing.
    """

    error: float
    band: int = 0
    axes: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0.1 <= self.error < 1:
            raise ConfigError(f"fill: error = {self.error}; allowed: 0.1 to below 1")
        if self.band < 0:
            raise ConfigError(f"fill: band = {self.band}; allowed: 0 (a token) or more")

    @cached_property
    def name(self) -> str:
        """Name on the wire; it holds a digest of the axes."""
        if self.axes is None:
            return f"fill:{self.error}:{self.band}"
        values = self.axes.float().contiguous().numpy().tobytes()
        digest = hashlib.blake2b(values, digest_size=4).hexdigest()
        return f"fill:{self.error}:{self.band}:{digest}"

    def encode(self, values: Tensor, frame: Frame) -> Packet:
        """Encode [T, D]; raises CodecError on values that are not finite, or beyond 1e18."""
        exact, dtype = take_values(values, self.name, frame)
        payload = self.write(self.turn(exact), frame)
        return Packet(self.name, dtype, tuple(values.shape), payload)

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D]; raises CodecError on a packet that does not fit."""
        dtype = check_floats(packet, self.name, frame)
        tokens, hidden = packet.shape
        return self.turn_back(self.read(packet.payload, tokens, hidden, frame)).to(dtype)

    def check(self, hidden: int) -> None:
        """Raises ConfigError where its settings do not go with D = `hidden`."""
        if self.band and hidden % self.band:
            raise ConfigError(f"fill: band = {self.band} does not divide hidden size {hidden}")
        if self.axes is not None and tuple(self.axes.shape) != (hidden, hidden):
            raise ConfigError(
                f"fill: axes of shape {list(self.axes.shape)} for hidden size {hidden}"
            )

    def turn(self, values: Tensor) -> Tensor:
        """[T, D] onto the axes."""
        return values if self.axes is None else values @ self.axes

    def turn_back(self, turned: Tensor) -> Tensor:
        """The inverse of `turn`."""
        return turned if self.axes is None else turned @ self.axes.T

    def write(self, turned: Tensor, frame: Frame, energy: float | None = None) -> bytes:
        """The payload of values on the axes [T, D], the error a part of `energy`, or of theirs."""
        cells = turned.reshape(-1, self.band or turned.shape[1])
        held = energies(cells, self.name)
        bits = fewest_bits(held, self.error**2 * (held.sum() if energy is None else energy))
        order, starts = _groups(bits)
        largest, levels, scales = _scales(held[order] / cells.shape[1])
        if not largest <= _LARGEST:
            raise CodecError(f"{self.name}: values beyond {_LARGEST}; training has diverged")
        chosen = cells[torch.from_numpy(order)]
        mixed = mix(chosen * random_signs(frame.seed, cells.shape[1]))
        inverse = torch.from_numpy(1 / scales)
        parts = [
            seed_tag(frame.seed, turned.shape[1]),
            np.float32(largest).tobytes(),
            pack(bits, _CHOICE),
            levels.tobytes(),
        ]
        for count, start, end in zip(gauss.BITS, starts, starts[1:], strict=False):
            if end > start:
                codes = gauss.encode(mixed[start:end], inverse[start:end], count)
                parts.append(pack(codes, count))
        return b"".join(parts)

    def read(self, payload: bytes, tokens: int, hidden: int, frame: Frame) -> Tensor:
        """The values on the axes [tokens, hidden]; raises CodecError if it does not fit."""
        order, starts = _groups(self.bits_of(payload, tokens, hidden).reshape(-1))
        check_seed(payload[:TAG], frame.seed, hidden, self.name)
        width = self.band or hidden
        sizes = [
            packed_size((end - start) * width, count)
            for count, start, end in zip(gauss.BITS, starts, starts[1:], strict=False)
        ]
        head = _HEAD + packed_size(tokens * (hidden // width), _CHOICE)
        body = head + len(order)
        if len(payload) != body + sum(sizes):
            raise CodecError(
                f"{self.name}: {len(payload)} bytes where its cells take {body + sum(sizes)}"
            )
        whole = torch.zeros(tokens * (hidden // width), width)
        largest = float(np.frombuffer(payload[TAG:_HEAD], "<f4")[0])
        if not 0 <= largest <= _LARGEST:
            raise CodecError(
                f"{self.name}: a scale is NaN, negative or beyond {_LARGEST}; the sender's "
                "training has diverged"
            )
        rows = torch.empty(len(order), width)
        for count, start, end, size in zip(gauss.BITS, starts, starts[1:], sizes, strict=False):
            if end > start:
                found = gauss.decode(payload[body : body + size], count, (end - start) * width)
                rows[start:end] = torch.from_numpy(found).view(-1, width)
            body += size
        scales = _scales_of(largest, np.frombuffer(payload[head : head + len(order)], np.uint8))
        rows.mul_(torch.from_numpy(scales)[:, None])
        whole[torch.from_numpy(order)] = mix(rows) * random_signs(frame.seed, width)
        return whole.view(tokens, hidden)

    def bits_of(self, payload: bytes, tokens: int, hidden: int) -> NDArray[np.uint8]:
        """Bits of each cell [T, D / b]; raises CodecError where it does not say."""
        try:
            self.check(hidden)
        except ConfigError as error:  # of the packet's hidden size, so the packet's fault
            raise CodecError(str(error)) from error
        each = hidden // (self.band or hidden)
        told = payload[_HEAD : _HEAD + packed_size(tokens * each, _CHOICE)]
        if len(told) < packed_size(tokens * each, _CHOICE):
            raise CodecError(f"{self.name}: {len(payload)} bytes for {tokens} tokens")
        bits = unpack(told, _CHOICE, tokens * each)
        if bits.max(initial=0) > gauss.BITS[-1]:
            raise CodecError(f"{self.name}: a cell of {bits.max()} bits; allowed: 0 to 4")
        return bits.reshape(tokens, each)


def fewest_bits(held: NDArray[np.float64], allowed: float) -> NDArray[np.uint8]:
    """The fewest bits [C] that leave out at most `allowed` of the energy; four each if none do."""
    steps = -np.diff([gauss.distortion(bits) for bits in (0, *gauss.BITS)])
    gains = held[:, None] * steps
    falling = np.sort(gains, axis=None)[::-1]
    left = held.sum() - np.cumsum(falling)
    taken = int(np.searchsorted(-left, -allowed))  # the first after which little enough is left
    if held.sum() <= allowed:
        return np.zeros(len(held), np.uint8)
    least = falling[min(taken, len(falling) - 1)]
    bits: NDArray[np.uint8] = (gains >= least).sum(1).astype(np.uint8)
    return bits


def energies(cells: Tensor, codec: str) -> NDArray[np.float64]:
    """Sum of squares of each row; raises CodecError where one is not finite."""
    norms = torch.linalg.vector_norm(cells, dim=1)
    found: NDArray[np.float64] = norms.double().square().numpy()
    if not np.isfinite(found).all():
        raise CodecError(f"{codec}: values that are not finite; training has diverged")
    return found


def _scales(
    variances: NDArray[np.float64],
) -> tuple[float, NDArray[np.uint8], NDArray[np.float32]]:
    """The largest root mean square, how far below it each is, and what that means."""
    if not len(variances):
        return 0.0, np.zeros(0, np.uint8), np.zeros(0, np.float32)
    largest = float(np.float32(math.sqrt(variances.max())))
    down = _STEPS / 2 * np.log2(variances.max() / variances)
    levels = np.clip(np.rint(down), 0, 255).astype(np.uint8)
    return largest, levels, _scales_of(largest, levels)


def _scales_of(largest: float, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (largest * np.exp2(levels / np.float64(-_STEPS))).astype(np.float32)


def _groups(bits: NDArray[np.uint8]) -> tuple[NDArray[np.int64], list[int]]:
    """Cells that are sent, fewest bits first, and where those of each number of bits begin."""
    order = np.argsort(bits, kind="stable")
    ends = np.searchsorted(bits[order], gauss.BITS, side="right")
    dropped = int((bits == 0).sum())
    return order[dropped:], [0, *(int(end) - dropped for end in ends)]

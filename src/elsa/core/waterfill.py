"""As many bits for each part of a tensor as it deserves, for a given error of the whole.

A few texts of a batch carry most of its gradient (the ones the model gets wrong), few tokens change
much between epochs, and hidden states vary in few directions: equal bits for all would waste most
of them. A tensor is cut into cells: tokens, or the bands of a token on axes that both ends know
(`core.bands`). After the rotation of `core.hadamard` the b values of a cell are near Gaussian, and
B bits leave the part d(B) of its energy e out (`core.gauss`). The bits are the fewest with

    sum_c d(B_c) e_c <= error^2 sum_c e_c,        B_c in {0, 1, 2, 3, 4}

which is reverse water-filling (Cover and Thomas, Elements of Information Theory, 10.3.3) in whole
bits: as d is convex, taking the best gain for a bit first is optimal.

    payload = seed's tag, 4 bytes | largest scale, float32 | B_c, 3 bits each |
              scale of each cell with B_c > 0, in eighths of an octave below the largest, 1 byte |
              codes of the cells of one bit | of two | of three | of four

Dropped cells decode to zero. Tokens are rotated by the frame's seed; bands always alike, so that
turning onto the axes and rotating are one product.

Shapes: T tokens, D hidden size, b values of a cell, C = T D / b cells.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elsa.core import gauss
from elsa.core.bands import Bands
from elsa.core.bits import pack, packed_size, unpack
from elsa.core.codec import Frame, Packet, check_floats, take_values
from elsa.core.hadamard import TAG, check_seed, mix, random_signs, seed_tag
from elsa.errors import CodecError, ConfigError

_CHOICE = 3
"""Bits that say how many bits a cell has."""
_LARGEST = 1e30
_STEPS = 8
"""Scales an octave."""
_OCTAVES = np.exp2(np.arange(256) / -_STEPS)
_HEAD = TAG + 4


@dataclass(frozen=True, eq=False)
class Filled:
    """Cells with their bits chosen: what a payload says.

    Attributes:
        bits: of each cell [C].
        order: [S] the cells that are sent, fewest bits first.
        starts: where in `order` those of 1, 2, 3 and 4 bits begin, and the end.
        largest: the largest scale.
        below: [S] how far below it each is, in eighths of an octave.
        codes: packed codes of the cells of 1, 2, 3 and 4 bits.
    """

    bits: NDArray[np.uint8]
    order: NDArray[np.int64]
    starts: Sequence[int]
    largest: float
    below: NDArray[np.uint8]
    codes: Sequence[bytes]


@dataclass(frozen=True, eq=False)
class WaterFill:
    """The coder.

    Attributes:
        error: norm of what may be left out, as a part of the norm of all; 0.1 to below 1.
        bands: what cells are; None takes tokens.
    """

    error: float
    bands: Bands | None = None

    def __post_init__(self) -> None:
        if not 0.1 <= self.error < 1:
            raise ConfigError(f"fill: error = {self.error}; allowed: 0.1 to below 1")

    @cached_property
    def name(self) -> str:
        """Name on the wire."""
        return f"fill:{self.error}" + (f":{self.bands.name}" if self.bands else "")

    def encode(self, values: Tensor, frame: Frame) -> Packet:
        """Encode [T, D]; raises CodecError on values that are not finite, or beyond 1e18."""
        exact, dtype = take_values(values, self.name, frame)
        turned = self.turn(exact)
        held = self.energies(turned)
        filled = self.fill(turned, held, float(held.sum()), frame)
        return Packet(self.name, dtype, tuple(values.shape), self.write(filled, turned, frame))

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D]; raises CodecError on a packet that does not fit."""
        dtype = check_floats(packet, self.name, frame)
        tokens, hidden = packet.shape
        filled = self.read(packet.payload, tokens, hidden, frame)
        turned = self.expand(filled, torch.zeros(tokens, hidden), frame)
        return self.turn_back(turned).to(dtype)

    def check(self, hidden: int) -> None:
        """Raises ConfigError where its settings do not go with D = `hidden`."""
        if self.bands and len(self.bands.axes) != hidden:
            raise ConfigError(
                f"fill: axes of {len(self.bands.axes)} dimensions for hidden size {hidden}"
            )

    def turn(self, values: Tensor) -> Tensor:
        """[T, D] onto the axes."""
        return self.bands.turn(values) if self.bands else values

    def turn_back(self, turned: Tensor) -> Tensor:
        """The inverse of `turn`."""
        return self.bands.turn_back(turned) if self.bands else turned

    def energies(self, turned: Tensor) -> NDArray[np.float64]:
        """Sum of squares of each cell [C]; raises CodecError where one is not finite."""
        norms = torch.linalg.vector_norm(self._cells(turned), dim=1)
        found: NDArray[np.float64] = norms.double().square().numpy()
        if not np.isfinite(found).all():
            raise CodecError(f"{self.name}: values that are not finite; training has diverged")
        return found

    def fill(
        self, turned: Tensor, held: NDArray[np.float64], energy: float, frame: Frame
    ) -> Filled:
        """Choose bits and codes of values on the axes.

        Args:
            turned: [T, D].
            held: their `energies`.
            energy: what the error is a part of.
            frame: of the tensor.
        """
        cells = self._cells(turned)
        bits = fewest_bits(held, self.error**2 * energy)
        order, starts = _groups(bits)
        largest, below = _scales(held[order] / cells.shape[1])
        if not largest <= _LARGEST:
            raise CodecError(f"{self.name}: values beyond {_LARGEST}; training has diverged")
        chosen = cells[torch.from_numpy(order)]
        if not self.bands:
            chosen = mix(chosen.mul_(random_signs(frame.seed, cells.shape[1])))
        inverse = torch.from_numpy(1 / _scales_of(largest, below))
        codes = [
            pack(gauss.encode(chosen[start:end], inverse[start:end], count), count)
            for count, start, end in zip(gauss.BITS, starts, starts[1:], strict=False)
        ]
        return Filled(bits, order, starts, largest, below, codes)

    def expand(self, filled: Filled, into: Tensor, frame: Frame) -> Tensor:
        """Add the values that were sent to `into` [T, D], on the axes, and return it."""
        cells = self._cells(into)
        width = cells.shape[1]
        rows = torch.empty(len(filled.order), width)
        found = rows.numpy()
        starts = filled.starts
        for codes, count, start, end in zip(
            filled.codes, gauss.BITS, starts, starts[1:], strict=False
        ):
            found[start:end] = gauss.decode(codes, count, (end - start) * width).reshape(-1, width)
        rows.mul_(torch.from_numpy(_scales_of(filled.largest, filled.below))[:, None])
        if not self.bands:
            rows = mix(rows).mul_(random_signs(frame.seed, width))
        cells.index_add_(0, torch.from_numpy(filled.order), rows)
        return into

    def write(self, filled: Filled, turned: Tensor, frame: Frame) -> bytes:
        """The payload."""
        parts = [
            seed_tag(frame.seed, turned.shape[1]),
            np.float32(filled.largest).tobytes(),
            pack(filled.bits, _CHOICE),
            filled.below.tobytes(),
            *filled.codes,
        ]
        return b"".join(parts)

    def read(self, payload: bytes, tokens: int, hidden: int, frame: Frame) -> Filled:
        """What a payload says of [tokens, hidden]; raises CodecError if it does not fit."""
        try:
            self.check(hidden)
        except ConfigError as error:  # of the packet's hidden size, so the packet's fault
            raise CodecError(str(error)) from error
        width = self._width(hidden)
        count = tokens * hidden // width
        head = _HEAD + packed_size(count, _CHOICE)
        if len(payload) < head:
            raise CodecError(f"{self.name}: {len(payload)} bytes for {tokens} tokens")
        check_seed(payload[:TAG], frame.seed, hidden, self.name)
        bits = unpack(payload[_HEAD:head], _CHOICE, count)
        if bits.max(initial=0) > gauss.BITS[-1]:
            raise CodecError(f"{self.name}: a cell of {bits.max()} bits; allowed: 0 to 4")
        largest = float(np.frombuffer(payload[TAG:_HEAD], "<f4")[0])
        if not 0 <= largest <= _LARGEST:
            raise CodecError(
                f"{self.name}: a scale is NaN, negative or beyond {_LARGEST}; the sender's "
                "training has diverged"
            )
        order, starts = _groups(bits)
        body = head + len(order)
        ends = [
            body + sum(packed_size((starts[n + 1] - starts[n]) * width, n + 1) for n in range(last))
            for last in range(len(gauss.BITS) + 1)
        ]
        if len(payload) != ends[-1]:
            raise CodecError(f"{self.name}: {len(payload)} bytes where its cells take {ends[-1]}")
        below = np.frombuffer(payload[head:body], np.uint8)
        codes = [payload[start:end] for start, end in pairwise(ends)]
        return Filled(bits, order, starts, largest, below, codes)

    def _width(self, hidden: int) -> int:
        return self.bands.width if self.bands else hidden

    def _cells(self, values: Tensor) -> Tensor:
        return values.reshape(-1, self._width(values.shape[1]))


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


def _scales(variances: NDArray[np.float64]) -> tuple[float, NDArray[np.uint8]]:
    """The largest root mean square, and how far below it each is."""
    if not len(variances):
        return 0.0, np.zeros(0, np.uint8)
    largest = float(np.float32(math.sqrt(variances.max())))
    down = _STEPS / 2 * np.log2(variances.max() / variances)
    return largest, np.clip(np.rint(down), 0, 255).astype(np.uint8)


def _scales_of(largest: float, below: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (largest * _OCTAVES).astype(np.float32)[below]


def _groups(bits: NDArray[np.uint8]) -> tuple[NDArray[np.int64], list[int]]:
    """Cells that are sent, fewest bits first, and where those of each number of bits begin."""
    order = np.argsort(bits, kind="stable")
    ends = np.searchsorted(bits[order], gauss.BITS, side="right")
    dropped = int((bits == 0).sum())
    return order[dropped:], [0, *(int(end) - dropped for end in ends)]

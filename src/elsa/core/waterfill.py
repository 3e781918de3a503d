"""As many bits for each part of a tensor as it deserves, for a given error of the whole.

A few texts of a batch carry most of its gradient (the ones the model gets wrong), few tokens change
much between epochs, and hidden states vary in few directions: equal bits for all would waste most
of them. A tensor is cut into cells: tokens, or the bands of a token on axes that both ends know
(`core.bands`). After a rotation (`core.cells`) the b values of a cell are near Gaussian, and B bits
leave the part d(B) of its energy e out (`core.gauss`). The bits are the fewest with

    sum_c d(B_c) e_c <= error^2 sum_c e_c,        B_c in {0, 1, 2, 3, 4}

which is reverse water-filling (Cover and Thomas, Elements of Information Theory, 10.3.3) in whole
bits: as d is convex, taking what gains most for each bit of the payload first is optimal.

    payload = seed's tag, 4 bytes | largest scale, float32 | B_c, 3 bits each |
              scale of each cell with B_c > 0, in eighths of an octave below the largest, 1 byte |
              codes of each such cell, in whole bytes

Dropped cells decode to zero. Tokens are rotated by the frame's seed; bands always alike, so that
turning onto the axes and rotating go together. The loops are in `core.allot` and
`core.kernels`.

Shapes: T tokens, D hidden size, n cells of a token, C = T n cells, b values of a cell.
"""

import math
import struct
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from elsa.core import allot, gauss, kernels
from elsa.core.bands import Bands
from elsa.core.bits import packed_size
from elsa.core.cells import Cells, room
from elsa.core.codec import Frame, Packet, check_floats, take_values
from elsa.core.compiled import FLOATS, Fixed
from elsa.core.hadamard import TAG, check_seed, random_signs, seed_tag
from elsa.errors import CodecError, ConfigError

_LARGEST = 1e30
_SCALE = struct.Struct("<f")
_HEAD = TAG + _SCALE.size
_NO_SIGNS = torch.empty(0)


class Filled(NamedTuple):
    """Cells with their bits chosen.

    Attributes:
        bits: of each cell [C + 8], the last eight without meaning.
        below: [C] how far each scale is below the largest, in eighths of an octave.
        sent: the largest scale, as it is sent.
        largest: what that says.
        size: bytes of scales and codes.
    """

    bits: Tensor
    below: Tensor
    sent: bytes
    largest: float
    size: int


class Received(NamedTuple):
    """A payload that fits.

    Attributes:
        bits: of each cell [C + 8], the last eight without meaning.
        largest: scale.
        body: the payload after its head.
    """

    bits: Tensor
    largest: float
    body: bytes


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
        """Encode [T, D]; raises CodecError on values that are not finite, or beyond 1e30."""
        exact, dtype = take_values(values, self.name, frame)
        turned = self.turn(exact, inside=values.dtype != exact.dtype)
        tokens, hidden = turned.shape
        cells = self.cells(hidden)
        energies = torch.empty(tokens * len(cells), dtype=torch.float64)
        energy = allot.measure(turned, cells.shape, energies)
        filled = self.fill(energies, energy, hidden)
        payload = self.write(filled, turned, turned.new_empty(0, hidden), frame)
        return Packet(self.name, dtype, tuple(values.shape), payload)

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D]; raises CodecError on a packet that does not fit."""
        dtype = check_floats(packet, self.name, frame)
        received = self.read(packet.payload, packet.shape[0], packet.shape[1], frame)
        turned = self.expand(received, torch.zeros(packet.shape), frame)
        return self.turn_back(turned).to(dtype)

    def check(self, hidden: int) -> None:
        """Raises ConfigError where its settings do not go with D = `hidden`."""
        if self.bands and len(self.bands.axes) != hidden:
            raise ConfigError(
                f"fill: axes of {len(self.bands.axes)} dimensions for hidden size {hidden}"
            )

    def cells(self, hidden: int) -> Cells:
        """The cells of a token; raises CodecError where the axes have another D."""
        found = self._cells.get(hidden)
        if found is not None:
            return found
        try:
            self.check(hidden)
        except ConfigError as error:  # of a tensor's hidden size, so the tensor's fault
            raise CodecError(str(error)) from error
        found = self._cells[hidden] = self.bands.cells if self.bands else _token(hidden)
        return found

    @cached_property
    def _cells(self) -> dict[int, Cells]:
        """By hidden size, as far as asked for."""
        return {}

    def turn(self, values: Tensor, *, inside: bool = False) -> Tensor:
        """[T, D] onto the axes; if inside, where they are."""
        return self.bands.turn(values, inside=inside) if self.bands else values

    def turn_back(self, turned: Tensor) -> Tensor:
        """The inverse of `turn`."""
        return self.bands.turn_back(turned) if self.bands else turned

    def fill(self, energies: Tensor, energy: float, hidden: int) -> Filled:
        """Choose the bits of cells.

        Args:
            energies: sum of squares of each cell [C], float64.
            energy: what the error is a part of.
            hidden: D.

        Raises:
            CodecError: values are not finite, or too large.
        """
        if not math.isfinite(energy):
            raise CodecError(f"{self.name}: values that are not finite; training has diverged")
        count = energies.shape[0]
        bits = torch.empty(count + kernels.SPARE, dtype=torch.uint8)
        below, scale = torch.empty(count, dtype=torch.uint8), energies.new_empty(1)
        shape, allowed = self.cells(hidden).shape, self.error**2 * energy
        pair = energies.new_empty(2, 4 * count)
        size = allot.choose(energies, shape, allowed, _parts(), pair, bits, below, scale)
        largest = scale.item()
        if not largest <= _LARGEST:
            raise CodecError(f"{self.name}: values beyond {_LARGEST}; training has diverged")
        sent = _SCALE.pack(largest)
        return Filled(bits, below, sent, _SCALE.unpack(sent)[0], size)

    def write(
        self, filled: Filled, turned: Tensor, held: Tensor, frame: Frame, before: bytes = b""
    ) -> bytes:
        """The payload of values [T, D] on the axes, less what is held.

        Args:
            filled: their bits.
            turned: the values.
            held: [T, D], to which what the payload says is added, as `expand` does at the other
                end; or [0, D], which stands for zeros.
            frame: of the tensor.
            before: what stands before the payload.
        """
        hidden = turned.shape[1]
        body = torch.empty(_packed(filled.below.shape[0]) + filled.size, dtype=torch.uint8)
        kernels.write(
            turned,
            held,
            self.cells(hidden).shape,
            self._signs(hidden, frame),
            filled.bits,
            filled.below,
            filled.largest,
            _steps(),
            room(hidden),
            body,
        )
        tag = seed_tag(frame.seed, hidden)
        return b"".join((before, tag, filled.sent, body.numpy().data))

    def read(
        self, payload: bytes, tokens: int, hidden: int, frame: Frame, start: int = 0
    ) -> Received:
        """What a payload says of [tokens, hidden]; raises CodecError if it does not fit.

        Args:
            payload: of a packet.
            tokens: T.
            hidden: D.
            frame: of the tensor.
            start: where `write` began, after what stands before.
        """
        cells = self.cells(hidden)
        count, size = tokens * len(cells), len(payload) - start
        if size < _HEAD + _packed(count):
            raise CodecError(f"{self.name}: {size} bytes for {tokens} tokens")
        check_seed(payload[start : start + TAG], frame.seed, hidden, self.name)
        (largest,) = _SCALE.unpack_from(payload, start + TAG)
        if not 0 <= largest <= _LARGEST:
            raise CodecError(
                f"{self.name}: a scale is NaN, negative or beyond {_LARGEST}; the sender's "
                "training has diverged"
            )
        body = payload[start + _HEAD :]
        bits = torch.empty(count + kernels.SPARE, dtype=torch.uint8)
        due = kernels.read(body, tokens, cells.shape, torch.empty_like(bits), bits)
        if due < 0:
            raise CodecError(f"{self.name}: a cell of {-due} bits; allowed: 0 to 4")
        if len(body) != due:
            raise CodecError(f"{self.name}: {size} bytes where its cells take {due + _HEAD}")
        return Received(bits, largest, body)

    def expand(self, received: Received, into: Tensor, frame: Frame) -> Tensor:
        """Add the values that were sent to `into` [T, D], on the axes, and return it."""
        kernels.expand(
            received.body,
            self.cells(into.shape[1]).shape,
            self._signs(into.shape[1], frame),
            received.bits,
            received.largest,
            _steps(),
            room(into.shape[1]),
            into,
        )
        return into

    def _signs(self, hidden: int, frame: Frame) -> Tensor:
        """Of the rotation; bands are rotated together with their axes."""
        return _NO_SIGNS if self.bands else random_signs(frame.seed, hidden)


def _packed(cells: int) -> int:
    """Bytes that say how many bits each of so many cells has."""
    return packed_size(cells, 2) + packed_size(cells, 1)


@cache
def _token(hidden: int) -> Cells:
    """A token as one cell."""
    return Cells((hidden,))


@cache
def _parts() -> Fixed:
    """[5]: of a cell's energy, what the first, second .. bit brings, and nothing after the last."""
    left = [gauss.distortion(bits) for bits in (0, *gauss.BITS)]
    return Fixed((FLOATS,), (torch.from_numpy(np.append(-np.diff(left), 0.0)),))


@cache
def _steps() -> Fixed:
    """[5, 16]: the levels of so many bits; [256]: eighths of octaves downwards."""
    levels = np.zeros((gauss.BITS[-1] + 1, 2 ** gauss.BITS[-1]))
    for bits in gauss.BITS:
        levels[bits, : 2**bits] = gauss.levels(bits)
    octaves = np.exp2(np.arange(256) / -8)
    return Fixed(kernels.STEPS, (torch.from_numpy(levels), torch.from_numpy(octaves)))

"""Low-bit integers with one scale a token, or a block of a token.

    payload = scales, bfloat16 [T, D / b] | codes, `bits` bits each [T, D]
    bytes   = 2 T D / b + ceil(T D bits / 8)          b = D where there are no blocks

Levels, for a scale of 1:
- "uniform": 2^bits evenly spaced levels from -1 to 1; the scale is the largest magnitude.
- "gauss": the 2^bits levels of least squared error for a normal distribution (Max 1960, Lloyd
  1982); the scale is the root mean square. For values that were rotated before.

Rounding to the nearest level, or "stochastic", to one of the two neighbours such that the mean over
seeds is the value itself. Error: nearest uniform, at most scale / (2^bits - 1) a value.

Shapes: T tokens, D hidden size, b values of a block.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elsa.core import gauss
from elsa.core.bits import look_up, pack, packed_size, unpack
from elsa.core.codec import Frame, Packet, check_coded, take_values
from elsa.errors import CodecError, ConfigError

_LARGEST = 1e30
_SMALLEST = 1e-30
"""Scales outside of these cannot be divided by, or multiplied with, in float32."""


@dataclass(frozen=True)
class Quantize:
    """The coder.

    Attributes:
        bits: 2, 3, 4 or 8 a value.
        block: values that share a scale; 0 takes a token's.
        levels: how the levels lie.
        rounding: to which level.
    """

    bits: int
    block: int = 0
    levels: Literal["uniform", "gauss"] = "uniform"
    rounding: Literal["nearest", "stochastic"] = "nearest"

    def __post_init__(self) -> None:
        if self.bits not in (2, 3, 4, 8):
            raise ConfigError(f"quantize: bits = {self.bits}; allowed: 2, 3, 4, 8")
        if self.block < 0:
            raise ConfigError(f"quantize: block = {self.block}; allowed: 0 (a token) or more")
        if self.levels not in ("uniform", "gauss"):
            raise ConfigError(f"quantize: levels = '{self.levels}'; allowed: uniform, gauss")
        if self.rounding not in ("nearest", "stochastic"):
            raise ConfigError(
                f"quantize: rounding = '{self.rounding}'; allowed: nearest, stochastic"
            )
        if self.levels == "gauss" and self.bits == 8:
            raise ConfigError("quantize: gauss levels are for 2, 3 and 4 bits; take uniform at 8")
        if self.levels == "gauss" and self.rounding == "stochastic":
            raise ConfigError(
                "quantize: gauss levels cannot be unbiased, as values lie beyond the last; "
                "take uniform levels with stochastic rounding"
            )

    @property
    def name(self) -> str:
        """Name on the wire."""
        block = str(self.block) if self.block else "token"
        return f"quantize:{self.bits}:{block}:{self.levels}:{self.rounding}"

    def size(self, tokens: int, hidden: int) -> int:
        """Bytes of the payload; raises ConfigError where blocks do not fill a token."""
        return 2 * self._scales(tokens, hidden) + packed_size(tokens * hidden, self.bits)

    def encode(self, values: Tensor, frame: Frame) -> Packet:
        """Encode [T, D]; raises CodecError on values that are not finite or beyond 1e18."""
        exact, dtype = take_values(values, self.name, frame)
        rows = exact.view(self._scales(*exact.shape), -1)
        scales = _up(rows.abs().amax(1)) if self.levels == "uniform" else _rms(rows)
        self._check_scales(scales)
        usable = torch.where(scales < _SMALLEST, math.inf, scales.float())
        codes = self._codes(rows, 1 / usable, frame.seed)
        payload = scales.view(torch.uint8).numpy().tobytes() + pack(codes, self.bits)
        return Packet(self.name, dtype, tuple(values.shape), payload)

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D]; raises CodecError on a packet that does not fit."""
        dtype = check_coded(packet, self, frame)
        count = math.prod(packet.shape)
        scales, codes = self._open(packet)
        if self.bits == 8:
            flat = unpack(codes, 8, count).astype(np.float32)
            flat -= 127.5
            flat *= np.float32(1 / 127.5)
        else:
            flat = look_up(codes, _levels(self.bits, self.levels), count)
        rows = torch.from_numpy(flat).view(len(scales), -1)
        return rows.mul_(scales[:, None]).view(packet.shape).to(dtype)

    def _open(self, packet: Packet) -> tuple[Tensor, bytes]:
        split = 2 * self._scales(packet.shape[0], packet.shape[1])
        if not split:
            return torch.empty(0), packet.payload
        scales = torch.frombuffer(bytearray(packet.payload[:split]), dtype=torch.bfloat16)
        self._check_scales(scales)
        return scales.float(), packet.payload[split:]

    def _scales(self, tokens: int, hidden: int) -> int:
        if self.block and hidden % self.block:
            raise ConfigError(
                f"quantize: block = {self.block} does not divide hidden size {hidden}"
            )
        return tokens * (hidden // self.block if self.block else 1)

    def _check_scales(self, scales: Tensor) -> None:
        if scales.numel() and not bool(((scales >= 0) & (scales <= _LARGEST)).all()):
            raise CodecError(
                f"{self.name}: a scale is NaN, negative or beyond {_LARGEST}; the sender's "
                "training has diverged"
            )

    def _codes(self, rows: Tensor, inverse: Tensor, seed: int) -> NDArray[np.uint8]:
        """The codes [T * D] of rows of values with their scales' inverses."""
        if self.levels == "gauss":
            return gauss.encode(rows, inverse, self.bits)
        last = 2**self.bits - 1
        steps = rows * (inverse * (last / 2))[:, None]
        if self.rounding == "nearest":
            return np.frombuffer(gauss.whole(steps, (last + 1) / 2, last), np.uint8)
        return np.frombuffer(gauss.whole(steps.add_(_noise(steps, seed)), last / 2, last), np.uint8)


def _noise(like: Tensor, seed: int) -> Tensor:
    """Uniform on [0, 1) in steps of 2^-16, from the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.empty(-(-like.numel() // 2), dtype=torch.int32)
    words.random_(-(2**31), 2**31, generator=generator)
    sixteenths = words.view(torch.int16)[: like.numel()].view(like.shape)
    return sixteenths.float().mul_(2**-16).add_(0.5)


def _up(scales: Tensor) -> Tensor:
    """Rounded to bfloat16, never down, so that no value lies beyond its scale."""
    bits = scales.view(torch.int32)
    return (
        torch.where(torch.isfinite(scales), (bits + 0xFFFF) & ~0xFFFF, bits)
        .view(torch.float32)
        .to(torch.bfloat16)
    )


def _rms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return (norms / math.sqrt(rows.shape[1])).to(torch.bfloat16)


@cache
def _levels(bits: int, kind: str) -> NDArray[np.float32]:
    if kind == "gauss":
        return gauss.levels(bits).astype(np.float32)
    return np.linspace(-1, 1, 2**bits, dtype=np.float32)

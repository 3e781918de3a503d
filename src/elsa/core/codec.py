"""The codec protocol: how a tensor that crosses a cut becomes bytes, and back.

A codec is chosen per hop and direction. `encode` returns bytes and typed metadata, never a
message; `decode` refuses what does not fit with `CodecError`. Laws that every codec is tested
for: the decoded shape is the encoded shape; the same seed gives the same bytes; the payload is
all that is sent besides the metadata.

No codec is differentiated through: gradients are tensors that cross a cut like any other, coded by
the codec of their own hop (straight-through).

Shapes: T tokens (all sequences of a batch in a row, no padding), D hidden size.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from elsa.errors import CodecError, ConfigError


@dataclass(frozen=True)
class Frame:
    """What both ends know of a tensor besides its values.

    Attributes:
        lengths: tokens of each sequence of the batch; their sum is T.
        seed: number that both ends derive alike, for codecs that draw at random.
        samples: number of each sequence, the same whenever that sequence comes again; for codecs
            that remember. Empty where nobody counts.
    """

    lengths: Sequence[int]
    seed: int = 0
    samples: Sequence[int] = ()


@dataclass(frozen=True)
class Packet:
    """An encoded tensor.

    Attributes:
        codec: name of the codec that made it; the receiver refuses any other.
        dtype: torch dtype of the decoded tensor, as in "float32".
        shape: shape of the decoded tensor.
        payload: the encoded values.
    """

    codec: str
    dtype: str
    shape: tuple[int, ...]
    payload: bytes


def frame_of(
    lengths: Sequence[int],
    seed: int,
    step: int,
    hop: str,
    samples: Sequence[int] = (),
    micro_batch: int = 0,
) -> Frame:
    """The frame of a hop of a step; its seed is drawn from the session's, alike at both ends.

    Args:
        lengths: tokens of each sequence of the batch.
        seed: of the session between device and edge, which the edge chose.
        step: local step.
        hop: "h1", "h2", "g2" or "g1".
        samples: number of each sequence, if they are numbered.
        micro_batch: of that step.
    """
    place = f"{step}.{micro_batch}" if micro_batch else f"{step}"
    digest = hashlib.blake2b(f"{seed}:{place}:{hop}".encode(), digest_size=8).digest()
    return Frame(lengths, int.from_bytes(digest, "little") >> 1, samples)


class Codec(Protocol):
    """One way to put a tensor [T, D] into bytes."""

    @property
    def name(self) -> str:
        """Name under which both ends know it."""
        ...

    def encode(self, values: Tensor, frame: Frame) -> Packet:
        """Encode `values` [T, D]."""
        ...

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D]; raises CodecError on a packet that does not fit."""
        ...


@runtime_checkable
class Coder(Codec, Protocol):
    """A codec of float tensors whose payload has a size that follows from the shape alone."""

    def size(self, tokens: int, hidden: int) -> int:
        """Bytes of the payload of a tensor [tokens, hidden].

        Raises:
            ConfigError: its settings do not go with this hidden size.
        """
        ...


class Transform(Protocol):
    """A reversible or lossy change of basis, to stand before a coder."""

    @property
    def name(self) -> str:
        """Name under which both ends know it."""
        ...

    def width(self, hidden: int) -> int:
        """D' for D = hidden; raises ConfigError if its settings do not go with it."""
        ...

    def side_size(self, tokens: int, hidden: int) -> int:
        """Bytes that it sends besides."""
        ...

    def forward(self, values: Tensor, frame: Frame) -> tuple[Tensor, bytes]:
        """[T, D] -> [T, D'], both float32, and what `inverse` needs besides."""
        ...

    def inverse(self, values: Tensor, side: bytes, hidden: int, frame: Frame) -> Tensor:
        """[T, D'] -> [T, D]; raises CodecError on `side` that does not fit."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A codec that remembers: one object for each end, device and hop."""

    def encode(self, values: Tensor, frame: Frame, full: bool = False) -> Packet:
        """Encode `values` [T, D]; if full, without building on what the decoder remembers."""
        ...

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D]; raises CacheMiss if the packet builds on what is not here."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What `restore` needs to go on from here."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an earlier `state`; what is broken or no longer there is forgotten."""
        ...


_DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
    "int64": torch.int64,
    "int32": torch.int32,
    "int8": torch.int8,
    "uint8": torch.uint8,
}
_FLOATS = ("float32", "bfloat16", "float16")
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Identity:
    """The exact codec: the tensor's own bytes, little endian, in its own dtype."""

    name = "identity"

    def encode(self, values: Tensor, frame: Frame) -> Packet:  # noqa: ARG002
        """Copy the values out, whatever their dtype and shape."""
        if values.dtype not in _NAMES:
            raise CodecError(f"identity: cannot send {values.dtype}; allowed: {', '.join(_DTYPES)}")
        raw = values.detach().contiguous().cpu().view(-1).view(torch.uint8)
        return Packet(self.name, _NAMES[values.dtype], tuple(values.shape), raw.numpy().tobytes())

    def decode(self, packet: Packet, frame: Frame) -> Tensor:  # noqa: ARG002
        """Rebuild the tensor; raises CodecError on another codec, a wrong length or dtype."""
        dtype = check_packet(packet, self.name)
        expected = math.prod(packet.shape) * dtype.itemsize
        if len(packet.payload) != expected:
            raise CodecError(
                f"identity: {len(packet.payload)} bytes for {packet.dtype}{list(packet.shape)}, "
                f"which takes {expected}"
            )
        if not expected:
            return torch.empty(packet.shape, dtype=dtype)
        flat = torch.frombuffer(bytearray(packet.payload), dtype=dtype)
        return flat.view(packet.shape)


@dataclass(frozen=True)
class HopCodecs:
    """The codec of each hop of a step, agreed on by a device and its edge server.

    Attributes:
        h1: hidden states at the first cut, device to edge.
        h2: hidden states at the second cut, edge to device.
        g2: gradients at the second cut, device to edge.
        g1: gradients at the first cut, edge to device.
    """

    h1: Codec
    h2: Codec
    g2: Codec
    g1: Codec

    @property
    def remembering(self) -> dict[str, Stateful]:
        """Those that remember, by hop."""
        by_hop = {hop: getattr(self, hop) for hop in ("h1", "h2", "g2", "g1")}
        return {hop: codec for hop, codec in by_hop.items() if isinstance(codec, Stateful)}

    def state(self) -> dict[str, Tensor]:
        """What they remember, under "<hop>/<part>"."""
        return {
            f"{hop}/{part}": value
            for hop, codec in self.remembering.items()
            for part, value in codec.state().items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an earlier `state`."""
        for hop, codec in self.remembering.items():
            parts = {key.partition("/")[2]: state[key] for key in state if key.startswith(hop)}
            if parts:
                codec.restore(parts)


EXACT = HopCodecs(Identity(), Identity(), Identity(), Identity())


def check_packet(packet: Packet, codec: str) -> torch.dtype:
    """The dtype of a packet that claims to be of `codec`.

    Raises:
        CodecError: another codec made it, its dtype is unknown or its shape is negative.
    """
    if packet.codec != codec:
        raise CodecError(f"packet made by codec '{packet.codec}' where '{codec}' was agreed on")
    if packet.dtype not in _DTYPES:
        raise CodecError(f"{codec}: unknown dtype '{packet.dtype}'; allowed: {', '.join(_DTYPES)}")
    if any(size < 0 for size in packet.shape):
        raise CodecError(f"{codec}: negative size in shape {list(packet.shape)}")
    return _DTYPES[packet.dtype]


def take_values(values: Tensor, codec: str, frame: Frame) -> tuple[Tensor, str]:
    """The values [T, D] as float32, and the name of their dtype, for a lossy codec to encode.

    Raises:
        CodecError: they are no float tensor of as many tokens as the frame says.
    """
    name = _NAMES.get(values.dtype, "")
    if name not in _FLOATS:
        raise CodecError(f"{codec}: cannot send {values.dtype}; allowed: {', '.join(_FLOATS)}")
    _check_tokens(tuple(values.shape), codec, frame)
    return values.detach().cpu().contiguous().float(), name


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite; ten times as fast as asking each one."""
    if not values.numel():
        return True
    low, high = torch.aminmax(values.detach())  # both are NaN if any value is
    return math.isfinite(low) and math.isfinite(high)


def check_floats(packet: Packet, codec: str, frame: Frame) -> torch.dtype:
    """The dtype of a packet that claims to hold the float tensor of a frame.

    Raises:
        CodecError: codec, dtype or shape do not fit.
    """
    dtype = check_packet(packet, codec)
    if packet.dtype not in _FLOATS:
        raise CodecError(f"{codec}: packet of {packet.dtype}; allowed: {', '.join(_FLOATS)}")
    _check_tokens(packet.shape, codec, frame)
    return dtype


def check_coded(packet: Packet, coder: Coder, frame: Frame) -> torch.dtype:
    """The dtype of a packet that fits a coder and a frame in all but its values.

    Raises:
        CodecError: codec, dtype, shape or length do not fit.
    """
    dtype = check_floats(packet, coder.name, frame)
    try:
        expected = coder.size(packet.shape[0], packet.shape[1])
    except ConfigError as error:  # of the packet's hidden size, so the packet's fault
        raise CodecError(str(error)) from error
    if len(packet.payload) != expected:
        raise CodecError(
            f"{coder.name}: {len(packet.payload)} bytes for shape {list(packet.shape)}, "
            f"which takes {expected}"
        )
    return dtype


def _check_tokens(shape: tuple[int, ...], codec: str, frame: Frame) -> None:
    tokens = sum(frame.lengths)
    if len(shape) != 2 or shape[0] != tokens or shape[1] < 1:
        raise CodecError(f"{codec}: shape {list(shape)}; allowed: [{tokens}, hidden size]")

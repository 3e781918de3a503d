"""The four hops of a step as one party of a session sees them: tensors to packets, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from elsa.core.codec import Codec, HopCodecs, Packet, Stateful, all_finite, frame_of
from elsa.errors import CodecError

_USABLE = (torch.float32, torch.bfloat16, torch.float16)
Hop = Literal["h1", "h2", "g2", "g1"]


@dataclass(frozen=True)
class Hops:
    """The codecs of a session between a device and its edge server.

    Attributes:
        codecs: of each hop.
        seed: of the session, alike at both ends.
        hidden: D.
    """

    codecs: HopCodecs
    seed: int
    hidden: int

    def seal(
        self,
        hop: Hop,
        values: Tensor,
        lengths: Sequence[int],
        step: int,
        numbers: Sequence[int] = (),
        *,
        micro_batch: int = 0,
        full: bool = False,
    ) -> Packet:
        """Encode [T, D], T the sum of lengths; if full, so that any peer can decode it."""
        codec: Codec = getattr(self.codecs, hop)
        frame = frame_of(lengths, self.seed, step, hop, numbers, micro_batch)
        if full and isinstance(codec, Stateful):
            return codec.encode(values, frame, full=True)
        return codec.encode(values, frame)

    def unseal(
        self,
        hop: Hop,
        packet: Packet,
        lengths: Sequence[int],
        step: int,
        numbers: Sequence[int] = (),
        dtype: torch.dtype | None = None,
        *,
        micro_batch: int = 0,
    ) -> Tensor:
        """Decode a packet that should hold a tensor [T, D] of `dtype`, T the sum of lengths.

        Raises:
            CacheMiss: it builds on what is not held here; ask for it in full.
            CodecError: its shape or dtype is another, its dtype none that a model computes in, or
                it holds NaN or infinity.
        """
        expected = (sum(lengths), self.hidden)
        if packet.shape != expected:
            raise CodecError(
                f"packet of shape {list(packet.shape)} came where {list(expected)} was due"
            )
        codec: Codec = getattr(self.codecs, hop)
        frame = frame_of(lengths, self.seed, step, hop, numbers, micro_batch)
        values = codec.decode(packet, frame)
        if values.dtype not in _USABLE:
            raise CodecError(
                f"packet of {packet.dtype} came where hidden states or gradients were due; "
                "allowed: float32, bfloat16, float16"
            )
        if dtype not in (None, values.dtype):
            raise CodecError(
                f"packet of {packet.dtype} came where {dtype} was due; "
                "model.precision must be the same at both ends"
            )
        if not all_finite(values):
            raise CodecError("packet holds NaN or infinity; the sender's training has diverged")
        return values

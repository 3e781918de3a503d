"""Only the largest values of each token.

    payload = positions, ceil(log2 D) bits each [T, k] | values [T, k] by a coder
    bytes   = those of T k packed positions + the coder's

The rest decodes to zero: the error is the norm of what was left out, and the coder's.

Shapes: T tokens, D hidden size, k values kept.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from elsa.core.bits import pack_wide, packed_size, unpack_wide
from elsa.core.cast import Cast
from elsa.core.codec import Coder, Frame, Packet, check_coded, take_values
from elsa.errors import CodecError, ConfigError


@dataclass(frozen=True)
class TopK:
    """The coder.

    Attributes:
        kept: k.
        values: codes what is kept, in order of position.
    """

    kept: int
    values: Coder = field(default_factory=lambda: Cast("bfloat16"))

    def __post_init__(self) -> None:
        if self.kept < 1:
            raise ConfigError(f"top-k: k = {self.kept}; allowed: 1 to the hidden size")

    @property
    def name(self) -> str:
        """Name on the wire."""
        return f"top:{self.kept}+{self.values.name}"

    def size(self, tokens: int, hidden: int) -> int:
        """Bytes of the payload; raises ConfigError where k > D or D > 2^16."""
        if not self.kept <= hidden <= 2**16:
            raise ConfigError(
                f"top-k: k = {self.kept} of hidden size {hidden}; allowed: k up to the hidden "
                "size, and that up to 65536"
            )
        positions = packed_size(tokens * self.kept, _position_bits(hidden))
        return positions + self.values.size(tokens, self.kept)

    def encode(self, values: Tensor, frame: Frame) -> Packet:
        """Encode [T, D]; raises CodecError on values that are not finite."""
        exact, dtype = take_values(values, self.name, frame)
        bits = _position_bits(exact.shape[1])
        self.size(*exact.shape)
        chosen = exact.abs().topk(self.kept, dim=1, sorted=False).indices.sort(dim=1).values
        inner = self.values.encode(exact.gather(1, chosen), frame)
        payload = pack_wide(chosen.view(-1).numpy(), bits) + inner.payload
        return Packet(self.name, dtype, tuple(values.shape), payload)

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D]; raises CodecError on a packet that does not fit."""
        dtype = check_coded(packet, self, frame)
        tokens, hidden = packet.shape
        bits, count = _position_bits(hidden), tokens * self.kept
        split = packed_size(count, bits)
        chosen = unpack_wide(packet.payload[:split], bits, count).reshape(tokens, self.kept)
        if (chosen >= hidden).any() or (np.diff(chosen, axis=1) <= 0).any():
            raise CodecError(f"{self.name}: positions that do not rise, or are not below {hidden}")
        inner = Packet(self.values.name, "float32", (tokens, self.kept), packet.payload[split:])
        kept = self.values.decode(inner, frame)
        return torch.zeros(packet.shape).scatter_(1, torch.from_numpy(chosen), kept).to(dtype)


def _position_bits(hidden: int) -> int:
    return max((hidden - 1).bit_length(), 1)

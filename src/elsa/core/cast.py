"""Values sent in a float type of their own, whatever type they are computed in.

bytes = 4 T D or 2 T D. Error: half a unit in the last place. There is no float16: gradients are
often below its range.

Shapes: T tokens, D hidden size.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from elsa.core.codec import Frame, Packet, all_finite, check_coded, take_values
from elsa.errors import CodecError, ConfigError

_SENT = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Cast:
    """The coder; float32 is exact for all that a codec is given.

    Attributes:
        to: the type sent.
    """

    to: Literal["float32", "bfloat16"]

    def __post_init__(self) -> None:
        if self.to not in _SENT:
            raise ConfigError(f"codec '{self.to}'; allowed as a type: {', '.join(_SENT)}")

    @property
    def name(self) -> str:
        """Name on the wire."""
        return self.to

    def size(self, tokens: int, hidden: int) -> int:
        """Bytes of the payload."""
        return tokens * hidden * _SENT[self.to].itemsize

    def encode(self, values: Tensor, frame: Frame) -> Packet:
        """Encode [T, D]; raises CodecError on values that are not finite in the type sent."""
        exact, dtype = take_values(values, self.name, frame)
        sent = self._finite(exact.to(_SENT[self.to]))
        raw = sent.view(-1).view(torch.uint8).numpy().tobytes()
        return Packet(self.name, dtype, tuple(values.shape), raw)

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D]; raises CodecError on a packet that does not fit."""
        dtype = check_coded(packet, self, frame)
        if not packet.payload:
            return torch.empty(packet.shape, dtype=dtype)
        sent = torch.frombuffer(bytearray(packet.payload), dtype=_SENT[self.to])
        return self._finite(sent).view(packet.shape).to(dtype)

    def _finite(self, sent: Tensor) -> Tensor:
        if not all_finite(sent):
            raise CodecError(
                f"{self.name}: NaN, infinity or a value too large for it; training has diverged, "
                "or the values need another type"
            )
        return sent

"""Transforms, then one coder; decoded in reverse.

    payload = side of the first transform | side of the second | ... | payload of the coder

Shapes: T tokens, D hidden size.
"""

from dataclasses import dataclass

from torch import Tensor

from elsa.core.codec import Coder, Frame, Packet, Transform, check_coded, take_values


@dataclass(frozen=True)
class Chain:
    """A coder behind transforms.

    Attributes:
        transforms: applied in this order.
        coder: codes what they leave, as float32.
    """

    transforms: tuple[Transform, ...]
    coder: Coder

    @property
    def name(self) -> str:
        """Name on the wire: the parts' own, in order."""
        return "+".join([each.name for each in self.transforms] + [self.coder.name])

    def size(self, tokens: int, hidden: int) -> int:
        """Bytes of the payload; raises ConfigError where a part does not go with `hidden`."""
        widths = self._widths(hidden)
        sides = [
            each.side_size(tokens, width)
            for each, width in zip(self.transforms, widths, strict=False)
        ]
        return sum(sides) + self.coder.size(tokens, widths[-1])

    def encode(self, values: Tensor, frame: Frame) -> Packet:
        """Encode [T, D]."""
        changed, dtype = take_values(values, self.name, frame)
        sides = []
        for each in self.transforms:
            changed, side = each.forward(changed, frame)
            sides.append(side)
        payload = b"".join([*sides, self.coder.encode(changed, frame).payload])
        return Packet(self.name, dtype, tuple(values.shape), payload)

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D]; raises CodecError on a packet that does not fit."""
        dtype = check_coded(packet, self, frame)
        tokens, hidden = packet.shape
        widths, sides, start = self._widths(hidden), [], 0
        for each, width in zip(self.transforms, widths, strict=False):
            end = start + each.side_size(tokens, width)
            sides.append(packet.payload[start:end])
            start = end
        inner = Packet(self.coder.name, "float32", (tokens, widths[-1]), packet.payload[start:])
        values = self.coder.decode(inner, frame)
        for each, width, side in reversed(list(zip(self.transforms, widths, sides, strict=False))):
            values = each.inverse(values, side, width, frame)
        return values.to(dtype)

    def _widths(self, hidden: int) -> list[int]:
        """The width before each transform, and what the coder gets."""
        widths = [hidden]
        for each in self.transforms:
            widths.append(each.width(widths[-1]))
        return widths

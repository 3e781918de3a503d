"""Coordinates on public directions, and a coded remainder.

    c = x V        x = c V^T + remainder
    payload = c [T, r] by one coder | remainder [T, D] by another

The remainder is taken from the coordinates as they are sent, so that only its own coder errs.

Shapes: T tokens, D hidden size, r directions.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from elsa.core.codec import Coder, Frame, Packet, check_coded, take_values
from elsa.errors import ConfigError


@dataclass(frozen=True, eq=False)
class SubspaceCoder:
    """The coder.

    Attributes:
        directions: V [D, r], orthonormal columns that both ends know.
        coordinates: codes c.
        remainder: codes what is left.
    """

    directions: Tensor
    coordinates: Coder
    remainder: Coder

    def __post_init__(self) -> None:
        shape = tuple(self.directions.shape)
        if len(shape) != 2 or not 1 <= shape[1] <= shape[0]:
            raise ConfigError(
                f"subspace: directions of shape {list(shape)}; allowed: [D, r] with 1 <= r <= D"
            )
        product = self.directions.double().T @ self.directions.double()
        error = (product - torch.eye(shape[1], dtype=torch.float64)).abs().max()
        if not float(error) < 1e-4:
            raise ConfigError(f"subspace: directions are not orthonormal, off by {error:.1g}")

    @cached_property
    def name(self) -> str:
        """Name on the wire; it holds a digest of the directions."""
        values = self.directions.float().contiguous().numpy().tobytes()
        digest = hashlib.blake2b(values, digest_size=4).hexdigest()
        rank = self.directions.shape[1]
        return f"subspace:{rank}:{digest}@{self.coordinates.name}@{self.remainder.name}"

    def size(self, tokens: int, hidden: int) -> int:
        """Bytes of the payload; raises ConfigError where D is not that of the directions."""
        if hidden != self.directions.shape[0]:
            raise ConfigError(
                f"subspace: directions are for hidden size {self.directions.shape[0]}, not {hidden}"
            )
        rank = self.directions.shape[1]
        return self.coordinates.size(tokens, rank) + self.remainder.size(tokens, hidden)

    def encode(self, values: Tensor, frame: Frame) -> Packet:
        """Encode [T, D]."""
        exact, dtype = take_values(values, self.name, frame)
        self.size(*exact.shape)
        basis = self.directions.float()
        sent = self.coordinates.encode(exact @ basis, frame)
        rest = exact - self.coordinates.decode(sent, frame) @ basis.T
        payload = sent.payload + self.remainder.encode(rest, frame).payload
        return Packet(self.name, dtype, tuple(values.shape), payload)

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D]; raises CodecError on a packet that does not fit."""
        dtype = check_coded(packet, self, frame)
        tokens, hidden = packet.shape
        basis = self.directions.float()
        split = self.coordinates.size(tokens, basis.shape[1])
        first = Packet(
            self.coordinates.name, "float32", (tokens, basis.shape[1]), packet.payload[:split]
        )
        second = Packet(self.remainder.name, "float32", (tokens, hidden), packet.payload[split:])
        rest = self.remainder.decode(second, frame)
        return rest.addmm_(self.coordinates.decode(first, frame), basis.T).to(dtype)

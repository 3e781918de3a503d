"""Packets of the remembering and the filling codec, to the bit: peers of two releases must agree.

A digest that changes is another codec: give it another name on the wire, or mend what changed it.
"""

import hashlib

import pytest
import torch
from torch import Tensor

from elsa.core.codec import frame_of
from elsa.core.temporal import Temporal
from elsa.core.waterfill import WaterFill

TOKENS, HIDDEN, STEPS = 24, 96, 3
LENGTHS = (5, 9, 3, 7)
DIGESTS = {
    ("fill:0.3", torch.float32): "bc6f0ffe9829e079",
    ("fill:0.3", torch.bfloat16): "ce533d3bc031d812",
    ("temporal:0.15", torch.float32): "57c07e50c91627ac",
    ("temporal:0.15", torch.bfloat16): "03d86d890d2ea8b2",
}


def values(step: int) -> Tensor:
    """Whole numbers of very unequal size, the same on any machine, that move a little."""
    place = torch.arange(TOKENS * HIDDEN, dtype=torch.int64)
    drawn = (place * 2654435761 + 97 * step * (place % 7 == step)) % 1009 - 504
    return (drawn.view(TOKENS, HIDDEN) * (1 + torch.arange(TOKENS)[:, None] % 5) ** 2).float()


@pytest.mark.parametrize(("codec", "dtype"), DIGESTS)
def test_packets_are_those_of_every_release(codec: str, dtype: torch.dtype) -> None:
    ends: list[WaterFill | Temporal] = [WaterFill(0.3), WaterFill(0.3)]
    if codec.startswith("temporal"):
        ends = [Temporal(WaterFill(0.15), 10**6) for _ in range(2)]
    digest = hashlib.blake2b(digest_size=8)
    for step in range(STEPS):
        frame = frame_of(LENGTHS, 7, step, "h1", (3, 1, 4, 15))
        packet = ends[0].encode(values(step).to(dtype), frame)
        decoded = ends[1].decode(packet, frame)
        digest.update(packet.codec.encode() + packet.payload)
        digest.update(decoded.float().numpy().tobytes())
    assert digest.hexdigest() == DIGESTS[codec, dtype]

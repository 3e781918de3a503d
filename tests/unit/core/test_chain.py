"""Chains: in order there, in reverse back."""

import torch

from elsa.core.cast import Cast
from elsa.core.chain import Chain
from elsa.core.codec import Frame
from elsa.core.hadamard import Rotate
from elsa.core.quantize import Quantize
from elsa.core.sketch import Center, CountSketch

FRAME = Frame((3,), 1)
VALUES = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
EXACT = Cast("float32")


def test_order_is_kept_and_reversed() -> None:
    chain = Chain((Center("token"), Rotate()), EXACT)
    packet = chain.encode(VALUES, FRAME)
    centred, means = Center("token").forward(VALUES, FRAME)
    turned, tag = Rotate().forward(centred, FRAME)
    assert packet.payload == means + tag + EXACT.encode(turned, FRAME).payload
    assert torch.allclose(chain.decode(packet, FRAME), VALUES, atol=1e-6)


def test_order_is_part_of_the_name() -> None:
    assert Chain((Rotate(), Center("token")), EXACT).name == "rotate+center:token+float32"
    assert Chain((Center("token"), Rotate()), EXACT).name == "center:token+rotate+float32"


def test_widths_follow_each_other() -> None:
    # The second transform and the coder see the sketch, not the token.
    chain = Chain((CountSketch(2, 4), Center("batch"), Rotate()), Quantize(8))
    assert chain.size(3, 24) == 4 + 2 * 8 + 4 + 2 * 3 + 3 * 8
    assert chain.decode(chain.encode(VALUES, FRAME), FRAME).shape == (3, 24)


def test_chain_of_a_coder_alone_is_that_coder() -> None:
    assert Chain((), Quantize(4)).encode(VALUES, FRAME) == Quantize(4).encode(VALUES, FRAME)


def test_bfloat16_is_coded_as_float32() -> None:
    # Rounded once, at the end; between the parts nothing is.
    low = VALUES.bfloat16()
    chain = Chain((Rotate(),), EXACT)
    assert torch.equal(chain.decode(chain.encode(low, FRAME), FRAME), low)

"""Top-k: the largest values, where they belong."""

import pytest
import torch

from elsa.core.cast import Cast
from elsa.core.codec import Frame, Packet
from elsa.core.sparse import TopK
from elsa.errors import CodecError, ConfigError

FRAME = Frame((2,))
VALUES = torch.tensor([[0.5, -4.0, 1.0, 3.0], [1.0, 0.0, 0.0, -2.0]])


def test_by_hand() -> None:
    packet = TopK(2).encode(VALUES, FRAME)
    # Positions 1, 3, 0, 3 in 2 bits each -> 0b11_00_11_01; then -4, 3, 1, -2 in bfloat16.
    assert packet.payload == bytes([0b11001101, 0x80, 0xC0, 0x40, 0x40, 0x80, 0x3F, 0x00, 0xC0])
    assert TopK(2).decode(packet, FRAME).tolist() == [[0, -4, 0, 3], [1, 0, 0, -2]]


def test_error_is_what_was_left_out() -> None:
    values = torch.randn(8, 300, generator=torch.Generator().manual_seed(0))
    coder, frame = TopK(40, Cast("float32")), Frame((8,))
    error = coder.decode(coder.encode(values, frame), frame) - values
    smallest = values.abs().sort(dim=1).values[:, :260]
    assert torch.allclose(error.norm(dim=1), smallest.norm(dim=1))


def test_equal_values_still_make_k() -> None:
    coder, frame = TopK(3, Cast("float32")), Frame((1,))
    assert float(coder.decode(coder.encode(torch.ones(1, 9), frame), frame).sum()) == 3


@pytest.mark.parametrize("positions", [0b11001111, 0b11000101, 0b00111101])
def test_positions_that_do_not_rise_are_refused(positions: int) -> None:
    packet = TopK(2).encode(VALUES, FRAME)
    broken = Packet(
        packet.codec, packet.dtype, packet.shape, bytes([positions]) + packet.payload[1:]
    )
    with pytest.raises(CodecError, match="positions that do not rise"):
        TopK(2).decode(broken, FRAME)


def test_position_beyond_the_hidden_size_is_refused() -> None:
    packet = TopK(1).encode(torch.ones(1, 3), Frame((1,)))
    broken = Packet(packet.codec, packet.dtype, packet.shape, b"\x03" + packet.payload[1:])
    with pytest.raises(CodecError, match="not below 3"):
        TopK(1).decode(broken, Frame((1,)))


def test_impossible_k_is_refused() -> None:
    with pytest.raises(ConfigError, match="k = 0"):
        TopK(0)
    with pytest.raises(ConfigError, match="k = 5 of hidden size 4"):
        TopK(5).size(1, 4)

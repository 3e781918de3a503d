"""The identity codec: exact for every bit pattern, and a refusal for every packet that is odd."""

from dataclasses import replace
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.codec import EXACT, Codec, Frame, Identity, Packet, check_packet
from elsa.errors import CodecError

DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
]
FRAME = Frame(lengths=(2, 1))
CODEC: Codec = Identity()
PACKET = CODEC.encode(torch.arange(6.0).view(3, 2), FRAME)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any shape and any bits, NaNs with payloads, infinities and negative zeros included."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    size = prod(shape) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if not raw:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(raw), dtype=dtype).view(shape)


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@settings(deadline=None)
@given(tensors())
def test_round_trip_is_exact(values: Tensor) -> None:
    packet = CODEC.encode(values, FRAME)
    back = CODEC.decode(packet, FRAME)
    assert (back.dtype, back.shape) == (values.dtype, values.shape)
    assert raw(back) == raw(values)


@settings(deadline=None)
@given(tensors())
def test_payload_is_the_values_and_nothing_else(values: Tensor) -> None:
    assert CODEC.encode(values, FRAME).payload == raw(values)


@settings(deadline=None)
@given(tensors(), st.integers(0, 2**32 - 1))
def test_seed_has_no_effect(values: Tensor, seed: int) -> None:
    assert CODEC.encode(values, Frame((1,), seed)) == CODEC.encode(values, FRAME)


def test_layout_by_hand() -> None:
    # Little endian, row by row: part of the protocol, whatever machine sends it.
    packet = CODEC.encode(torch.tensor([[1, 2], [3, 258]], dtype=torch.int32), FRAME)
    assert packet == Packet(
        "identity", "int32", (2, 2), bytes([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 2, 1, 0, 0])
    )


@pytest.mark.parametrize(
    "view", [torch.arange(6.0).view(3, 2).T, torch.arange(8.0)[::2], torch.ones(1).expand(4, 2)]
)
def test_memory_order_of_the_sender_does_not_matter(view: Tensor) -> None:
    assert torch.equal(CODEC.decode(CODEC.encode(view, FRAME), FRAME), view)


def test_sides_share_no_memory() -> None:
    values = torch.zeros(2, 2)
    packet = CODEC.encode(values, FRAME)
    values += 1
    first = CODEC.decode(packet, FRAME)
    first += 2
    assert CODEC.decode(packet, FRAME).tolist() == [[0, 0], [0, 0]]


def test_gradients_are_not_asked_for() -> None:
    values = torch.ones(2, requires_grad=True)
    assert not CODEC.decode(CODEC.encode(values, FRAME), FRAME).requires_grad


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
def test_dtype_without_a_name_is_not_sent(dtype: torch.dtype) -> None:
    with pytest.raises(CodecError, match=r"cannot send torch\.\w+; allowed: float32"):
        CODEC.encode(torch.zeros(2, dtype=dtype), FRAME)


@pytest.mark.parametrize(
    ("packet", "says"),
    [
        (replace(PACKET, codec="sketch"), "'sketch' where 'identity' was agreed on"),
        (replace(PACKET, dtype="float99"), "unknown dtype 'float99'; allowed: float32"),
        (replace(PACKET, dtype="float64"), "24 bytes for float64.* takes 48"),
        (replace(PACKET, shape=(3, 3)), "24 bytes .* takes 36"),
        (replace(PACKET, shape=(-3, -2)), "negative size"),
        (replace(PACKET, payload=PACKET.payload[:-1]), "23 bytes .* takes 24"),
        (replace(PACKET, payload=PACKET.payload + b"x"), "25 bytes .* takes 24"),
        (replace(PACKET, payload=b""), "0 bytes .* takes 24"),
        (replace(PACKET, shape=(0, 2)), "24 bytes .* takes 0"),
        (replace(PACKET, shape=(2**32, 2**32), payload=b""), "0 bytes .* takes 7378697629"),
    ],
)
def test_packet_that_does_not_fit_is_refused(packet: Packet, says: str) -> None:
    # The last: 2^64 values wrap around to none in 64 bits.
    with pytest.raises(CodecError, match=says):
        CODEC.decode(packet, FRAME)


def test_check_packet_gives_the_dtype() -> None:
    assert check_packet(PACKET, "identity") is torch.float32


def test_exact_codecs_are_exact_on_every_hop() -> None:
    values = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    for codec in (EXACT.h1, EXACT.h2, EXACT.g2, EXACT.g1):
        assert torch.equal(codec.decode(codec.encode(values, FRAME), FRAME), values)

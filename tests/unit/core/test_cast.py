"""Casts: rounding once, and no value that the type sent cannot hold."""

import pytest
import torch

from elsa.core.cast import Cast
from elsa.core.codec import Frame, Packet
from elsa.errors import CodecError, ConfigError

FRAME = Frame((1,))


def test_layout_by_hand() -> None:
    values = torch.tensor([[1.0, -2.0]])
    assert Cast("bfloat16").encode(values, FRAME).payload == b"\x80\x3f\x00\xc0"
    assert Cast("float32").encode(values, FRAME).payload == b"\0\0\x80\x3f\0\0\0\xc0"


def test_decoded_type_is_the_sender_s_not_the_wire_s() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for to in ("float32", "bfloat16"):
            packet = Cast(to).encode(torch.ones(1, 2, dtype=dtype), FRAME)  # type: ignore[arg-type]
            back = Cast(to).decode(packet, FRAME)  # type: ignore[arg-type]
            assert back.dtype == dtype
            assert back.tolist() == [[1.0, 1.0]]


def test_bfloat16_rounds_to_nearest() -> None:
    values = torch.tensor([[1 + 2**-7 + 2**-9]])
    assert (
        Cast("bfloat16").decode(Cast("bfloat16").encode(values, FRAME), FRAME).item() == 1 + 2**-7
    )


def test_too_large_for_the_type_is_not_sent() -> None:
    with pytest.raises(CodecError, match="too large"):
        Cast("bfloat16").encode(torch.tensor([[3.4e38]]), FRAME)


def test_nan_is_refused_on_arrival() -> None:
    with pytest.raises(CodecError, match="NaN"):
        Cast("bfloat16").decode(Packet("bfloat16", "float32", (1, 1), b"\xc0\x7f"), FRAME)


def test_unknown_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="codec 'float8'"):
        Cast("float8")  # type: ignore[arg-type]

"""Bit packing: exactly so many bits, in a layout that is part of the protocol."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsa.core.bits import look_up, pack, pack_wide, packed_size, unpack, unpack_wide


@settings(deadline=None)
@given(st.integers(1, 8), st.data())
def test_layout_is_one_long_number(bits: int, data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    number = sum(code << (place * bits) for place, code in enumerate(codes))
    packed = pack(np.array(codes, np.uint8), bits)
    assert packed == number.to_bytes(-(-len(codes) * bits // 8), "little")
    assert len(packed) == packed_size(len(codes), bits)
    assert unpack(packed, bits, len(codes)).tolist() == codes


def test_three_bits_by_hand() -> None:
    # 1, 2, 3 from the lowest bit up: 001, 010, 011 -> 0b011_010_001
    assert pack(np.array([1, 2, 3], np.uint8), 3) == bytes([0b11010001, 0b0])
    assert pack(np.array([7] * 8, np.uint8), 3) == b"\xff\xff\xff"


@settings(deadline=None)
@given(st.integers(1, 16), st.data())
def test_wide_numbers_come_back(bits: int, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    packed = pack_wide(np.array(numbers, np.int64), bits)
    assert len(packed) == packed_size(len(numbers), bits)
    assert unpack_wide(packed, bits, len(numbers)).tolist() == numbers


@pytest.mark.parametrize("bits", [2, 3, 4])
@settings(deadline=None)
@given(data=st.data())
def test_look_up_is_unpack_and_index(bits: int, data: st.DataObject) -> None:
    levels = np.array(data.draw(st.permutations(range(2**bits))), np.float32)
    codes = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40)), np.uint8)
    found = look_up(pack(codes, bits), levels, len(codes))
    assert found.tolist() == levels[codes].tolist()
    found += 1  # the caller's own: the table behind it must not change
    assert look_up(pack(codes, bits), levels, len(codes)).tolist() == levels[codes].tolist()

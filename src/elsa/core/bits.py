"""Small whole numbers packed into as many bits as they need, with nothing between them.

Layout: number i takes bits [i * b, (i + 1) * b) of the payload read as one little-endian number;
numbers of more than 8 bits go as their low bytes in a row, then the rest packed like that.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]
_GROUP = 8
"""Codes packed at a time: 8 codes of b bits are b whole bytes."""


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` numbers of `bits` bits take."""
    if bits > 8:
        return count + packed_size(count, bits - 8)
    return -(-count * bits // 8)


def pack(codes: Codes, bits: int) -> bytes:
    """Codes [n] below 2^bits, bits 1 to 8 -> ceil(n * bits / 8) bytes."""
    if bits == 8:
        return codes.tobytes()
    size = packed_size(len(codes), bits)
    if len(codes) % _GROUP:
        codes = np.concatenate([codes, np.zeros(-len(codes) % _GROUP, np.uint8)])
    while bits <= 4:  # the common case, by halves, faster than by words
        pairs = codes.view("<u2")
        codes, bits = (pairs | (pairs >> np.uint16(8 - bits))).astype(np.uint8), 2 * bits
    return (codes.tobytes() if bits == 8 else _pack_words(codes, bits))[:size]


def unpack(payload: bytes, bits: int, count: int) -> Codes:
    """The inverse of `pack`: `count` codes."""
    if bits == 8:
        return np.frombuffer(payload, np.uint8, count)
    raw = _whole_groups(payload, bits)
    groups = np.zeros((len(raw) // bits, 8), np.uint8)
    groups[:, :bits] = raw.reshape(-1, bits)
    words = groups.reshape(-1).view("<u8")
    for lane in (32, 16, 8):
        filled = lane * bits // 8
        low = _lanes(lane, filled)
        words = (words & low) | ((words & (low << np.uint64(filled))) << np.uint64(lane - filled))
    return words.view(np.uint8)[:count]


def pack_wide(numbers: NDArray[np.int64], bits: int) -> bytes:
    """Numbers [n] below 2^bits, bits 1 to 16 -> `packed_size` bytes."""
    if bits <= 8:
        return pack(numbers.astype(np.uint8), bits)
    low = (numbers & 0xFF).astype(np.uint8)
    return low.tobytes() + pack((numbers >> 8).astype(np.uint8), bits - 8)


def unpack_wide(payload: bytes, bits: int, count: int) -> NDArray[np.int64]:
    """The inverse of `pack_wide`."""
    if bits <= 8:
        return unpack(payload, bits, count).astype(np.int64)
    low = np.frombuffer(payload, np.uint8, count).astype(np.int64)
    return low | (unpack(payload[count:], bits - 8, count).astype(np.int64) << 8)


def look_up(payload: bytes, levels: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The level that each of `count` packed codes stands for, several codes at a time.

    Args:
        payload: what `pack` made of the codes.
        levels: [2^bits], bits 1, 2, 3 or 4.
        count: of the codes.

    Returns:
        [count], writable.
    """
    bits = len(levels).bit_length() - 1
    width = {1: 4, 2: 4, 3: 4, 4: 2}[bits]
    raw = _whole_groups(payload, bits)
    if bits == 3:
        triples = np.zeros((len(raw) // 3, 4), np.uint8)
        triples[:, :3] = raw.reshape(-1, 3)
        both = triples.reshape(-1).view("<u4")
        index = np.stack([both & 0xFFF, both >> 12], 1).reshape(-1).astype(np.intp)
    elif bits == 1:
        index = np.stack([raw & 0xF, raw >> 4], 1).reshape(-1).astype(np.intp)
    else:
        index = raw.astype(np.intp)
    table = _table(levels.tobytes(), bits, width)
    found: NDArray[np.float32] = table.take(index, mode="clip").view(np.float32)
    return found[:count]


def _pack_words(codes: Codes, bits: int) -> bytes:
    if len(codes) % _GROUP:
        codes = np.concatenate([codes, np.zeros(-len(codes) % _GROUP, np.uint8)])
    words = codes.view("<u8")
    for lane in (8, 16, 32):  # 8, 4, 2 lanes a word become half as many, twice as full
        filled = lane * bits // 8
        low = _lanes(lane, filled)
        words = (words & low) | ((words >> np.uint64(lane - filled)) & (low << np.uint64(filled)))
    return words.view(np.uint8).reshape(-1, 8)[:, :bits].tobytes()


def _whole_groups(payload: bytes, bits: int) -> Codes:
    missing = -len(payload) % bits
    return np.frombuffer(payload + bytes(missing) if missing else payload, np.uint8)


@cache
def _lanes(lane: int, filled: int) -> np.uint64:
    """A word with the lowest `filled` bits set in every other lane."""
    return np.uint64(sum((2**filled - 1) << start for start in range(0, 64, 2 * lane)))


@cache
def _table(levels: bytes, bits: int, width: int) -> NDArray[np.generic]:
    """For every word of `width` codes the levels they stand for, as one wide element."""
    words = np.arange(2 ** (bits * width))
    codes = np.stack([(words >> (bits * place)) % 2**bits for place in range(width)], 1)
    wide = np.complex128 if width == 4 else np.float64
    table: NDArray[np.generic] = np.frombuffer(levels, np.float32)[codes].view(wide).reshape(-1)
    return table

"""Compiled loops over the cells of a tensor: their rotation, and their codes.

A shape is cells [n, 7], which say where each cell of a token begins and ends, the odd factor of its
b, and the bytes of its codes at one, two, three and four bits; and mixers [n, m, m], a matrix for
each odd factor (`core.cells`). Why compiled, and how: `core.compiled`.

    codes of a cell, B bits each, whole bytes:
        value j + k ceil(b p / 8) takes bits [k p, (k + 1) p) of byte j, for p = B in {1, 2, 4};
        three bits go as their low two, then their high one

Shapes: T tokens, D hidden size, n cells of a token, C = T n cells, b values of a cell.
"""

from typing import Any

import numpy as np

from elsa.core.compiled import (
    BYTES,
    CODES,
    FLOAT,
    FLOATS,
    INTEGER,
    ROOM,
    ROWS,
    SHAPE,
    SINGLES,
    Kind,
    compiled,
    inner,
)

STEPS = (Kind("float64", 2), FLOATS)
_CHOICE = 3
"""Bits that say how many bits a cell has."""
_MOST = 4
_PLACE = np.uintp
SPARE = 8
"""Codes past the last that a buffer must have room for."""


@inner
def _hadamard(row: Any) -> None:
    """Sylvester's matrix times [b] in place, b a power of two; three stages at a time."""
    size, step = len(row), 1
    if size >= 8:
        step = 8
        for block in range(size // 8):
            s = _PLACE(8 * block)  # unsigned: nothing is counted from the end
            t, u, v = s + _PLACE(1), s + _PLACE(2), s + _PLACE(3)
            w, x, y, z = s + _PLACE(4), s + _PLACE(5), s + _PLACE(6), s + _PLACE(7)
            a, b, c, d = row[s] + row[t], row[s] - row[t], row[u] + row[v], row[u] - row[v]
            e, f, g, h = row[w] + row[x], row[w] - row[x], row[y] + row[z], row[y] - row[z]
            a, c, b, d = a + c, a - c, b + d, b - d
            e, g, f, h = e + g, e - g, f + h, f - h
            row[s], row[t], row[u], row[v] = a + e, b + f, c + g, d + h
            row[w], row[x], row[y], row[z] = a - e, b - f, c - g, d - h
    if size >= 64:
        step = 64
        for i in range(0, size, 64):
            q = row[i : i + 64]
            for j in range(8):
                a, b = q[j] + q[j + 8], q[j] - q[j + 8]
                c, d = q[j + 16] + q[j + 24], q[j + 16] - q[j + 24]
                e, f = q[j + 32] + q[j + 40], q[j + 32] - q[j + 40]
                g, h = q[j + 48] + q[j + 56], q[j + 48] - q[j + 56]
                a, c, b, d = a + c, a - c, b + d, b - d
                e, g, f, h = e + g, e - g, f + h, f - h
                q[j], q[j + 8], q[j + 16], q[j + 24] = a + e, b + f, c + g, d + h
                q[j + 32], q[j + 40], q[j + 48], q[j + 56] = a - e, b - f, c - g, d - h
    while step < size:
        for i in range(0, size, 2 * step):
            low, high = row[i : i + step], row[i + step : i + 2 * step]
            for j in range(step):
                x, y = low[j], high[j]
                low[j], high[j] = x + y, x - y
        step *= 2


@inner
def _mix(row: Any, odd: Any, mixer: Any, work: Any) -> None:
    """Rotate [b] in place: Hadamard's matrix on each of `odd` parts, then `mixer` across them."""
    even = len(row) // odd
    scale = np.float32(1.0 / np.sqrt(np.float64(even)))
    for m in range(odd):
        _hadamard(row[m * even : (m + 1) * even])
    if odd == 1:
        for i in range(even):
            row[i] *= scale
        return
    parts = work[: len(row)]
    for i in range(len(row)):
        parts[i] = row[i] * scale
    p, q, r = parts[:even], parts[even : 2 * even], parts[2 * even : 3 * even]
    for k in range(odd):
        out = row[k * even : (k + 1) * even]
        x, y, z = mixer[k, 0], mixer[k, 1], mixer[k, 2]
        for i in range(even):
            out[i] = x * p[i] + y * q[i] + z * r[i]
        for m in range(3, odd, 2):  # two in one pass, summed as if one by one
            y, z = mixer[k, m], mixer[k, m + 1]
            s, t = parts[m * even : (m + 1) * even], parts[(m + 1) * even : (m + 2) * even]
            for i in range(even):
                out[i] = out[i] + y * s[i] + z * t[i]


@inner
def _packed(count: Any) -> Any:
    """Bytes of the bits of so many cells."""
    return -(-count // 4) + -(-count // 8)


@inner
def _put(codes: Any, width: Any, shift: Any, bits: Any, out: Any) -> Any:
    """Write `bits` bits, 1, 2 or 4, of each code from `shift` on; the bytes they took."""
    size = -(-width * bits // 8)
    mask = (1 << bits) - 1
    for j in range(size):
        out[j] = (codes[j] >> shift) & mask
    for k in range(1, 8 // bits):
        part = codes[k * size : (k + 1) * size]
        for j in range(size):
            out[j] |= ((part[j] >> shift) & mask) << (k * bits)
    return size


@inner
def _get(payload: Any, width: Any, bits: Any, codes: Any) -> Any:
    """The inverse of `_put` without shift."""
    size = -(-width * bits // 8)
    mask = (1 << bits) - 1
    for k in range(8 // bits):
        part = codes[k * size : (k + 1) * size]
        for j in range(size):
            part[j] = (payload[j] >> (k * bits)) & mask
    return size


@inner
def _pack(codes: Any, width: Any, bits: Any, out: Any) -> None:
    for i in range(width, width + SPARE):
        codes[i] = 0
    if bits == 3:
        size = _put(codes, width, 0, 2, out)
        _put(codes, width, 2, 1, out[size:])
    else:
        _put(codes, width, 0, bits, out)


@inner
def _unpack(payload: Any, width: Any, bits: Any, codes: Any, spare: Any) -> None:
    if bits == 3:
        size = _get(payload, width, 2, codes)
        _get(payload[size:], width, 1, spare)
        for i in range(width):
            codes[i] |= spare[i] << 2
    else:
        _get(payload, width, bits, codes)


@inner
def _add(codes: Any, scaled: Any, signs: Any, odd: Any, mixer: Any, work: Any, target: Any) -> None:
    """Add the values that codes stand for, rotated back, to `target` [b]."""
    width = len(target)
    if not len(signs):
        for i in range(width):
            target[i] += scaled[codes[i]]
        return
    row = work[1, :width]
    for i in range(width):
        row[i] = scaled[codes[i]]
    _mix(row, odd, mixer, work[0])
    for i in range(width):
        target[i] += row[i] * signs[i]


@inner
def _scaled(levels: Any, bits: Any, scale: Any, out: Any) -> None:
    for k in range(1 << bits):
        out[k] = np.float32(levels[bits, k] * scale)


@compiled(ROWS, SHAPE, ROOM, ROWS)
def mix(values: Any, shape: Any, room: Any, out: Any) -> None:
    """Rotate each cell of [T, D] into `out`, another or the same; its own inverse."""
    cells, mixers = shape
    work = room[0][0]
    for t in range(len(values)):
        row, turned = values[t], out[t]
        for i in range(len(row)):
            turned[i] = row[i]
        for c in range(len(cells)):
            _mix(turned[cells[c, 0] : cells[c, 1]], cells[c, 2], mixers[c], work)


@inner
def _quantize(row: Any, scaled: Any, levels: Any, codes: Any) -> None:
    """The nearest of the first so many scaled levels to each value."""
    for i in range(len(row)):
        codes[i] = 0
    for k in range(1, levels):
        edge = (scaled[k - 1] + scaled[k]) * np.float32(0.5)
        for i in range(len(row)):
            codes[i] += row[i] > edge


@compiled(ROWS, ROWS, SHAPE, SINGLES, CODES, CODES, FLOAT, STEPS, ROOM, CODES)
def write(  # noqa: PLR0913, PLR0917
    values: Any,
    held: Any,
    shape: Any,
    signs: Any,
    bits: Any,
    below: Any,
    largest: Any,
    steps: Any,
    room: Any,
    out: Any,
) -> None:
    """Write bits, scales and codes of values - held, and add what they stand for to `held`.

    Args:
        values: [T, D].
        held: [T, D], or [0, D] for zeros that nobody needs afterwards.
        shape: cells of a token, and mixers.
        signs: [D] for the rotation, or [0] for no rotation.
        bits: [C + 8] of each cell.
        below: [C] its scale.
        largest: the scale of which `below` says a part.
        steps: levels [5, 16] of so many bits, and what `below` stands for [256].
        room: to work in: [3, D], codes [D + 8], codes [D + 8], [16].
        out: [N] the payload after its head.
    """
    cells, mixers = shape
    levels, scales = steps
    tokens, n = len(values), len(cells)
    work, codes, _, scaled = room
    change = work[2]
    _pack(bits, tokens * n, _CHOICE, out)
    at = _packed(tokens * n)
    for cell in range(tokens * n):
        if bits[cell]:
            out[at] = below[cell]
            at += 1
    for cell in range(tokens * n):
        some = np.int64(bits[cell])
        if not some:
            continue
        t, c = cell // n, cell % n
        begin, end = cells[c, 0], cells[c, 1]
        width = end - begin
        row, value = change[:width], values[t, begin:end]
        for i in range(width):
            row[i] = value[i]
        if len(held):
            past = held[t, begin:end]
            for i in range(width):
                row[i] -= past[i]
        flips = signs[begin:end]
        if len(signs):
            for i in range(width):
                row[i] *= flips[i]
            _mix(row, cells[c, 2], mixers[c], work[0])
        _scaled(levels, some, largest * scales[below[cell]], scaled)
        _quantize(row, scaled, 1 << some, codes)
        _pack(codes, width, some, out[at:])
        at += cells[c, 2 + some]
        if len(held):
            _add(codes, scaled, flips, cells[c, 2], mixers[c], work, held[t, begin:end])


@compiled(BYTES, INTEGER, SHAPE, CODES, CODES, gives=INTEGER)
def read(payload: Any, tokens: int, shape: Any, spare: Any, bits: Any) -> Any:
    """The bits of each cell.

    Args:
        payload: what `write` wrote; at least the bits of all cells.
        tokens: T.
        shape: cells of a token, and mixers.
        spare: [C + 8] to work in.
        bits: [C + 8] become the bits of each cell.

    Returns:
        Bytes that such a payload must have; -B if a cell has B bits, which are too many.
    """
    cells, _ = shape
    n = len(cells)
    _unpack(payload, tokens * n, _CHOICE, bits, spare)
    size = _packed(tokens * n)
    for cell in range(tokens * n):
        some = np.int64(bits[cell])
        if some > _MOST:
            return -some
        if some:
            size += 1 + cells[cell % n, 2 + some]
    return size


@compiled(BYTES, SHAPE, SINGLES, CODES, FLOAT, STEPS, ROOM, ROWS)
def expand(
    payload: Any,
    shape: Any,
    signs: Any,
    bits: Any,
    largest: Any,
    steps: Any,
    room: Any,
    into: Any,
) -> None:
    """Add what a payload stands for to `into` [T, D]; the arguments are those of `write`."""
    cells, mixers = shape
    levels, scales = steps
    tokens, n = len(into), len(cells)
    work, codes, spare, scaled = room
    place = _packed(tokens * n)
    at = place
    for cell in range(tokens * n):
        at += 1 if bits[cell] else 0
    for cell in range(tokens * n):
        some = np.int64(bits[cell])
        if not some:
            continue
        t, c = cell // n, cell % n
        begin, end = cells[c, 0], cells[c, 1]
        _unpack(payload[at:], end - begin, some, codes, spare)
        _scaled(levels, some, largest * scales[payload[place]], scaled)
        flips = signs[begin:end]
        _add(codes, scaled, flips, cells[c, 2], mixers[c], work, into[t, begin:end])
        place += 1
        at += cells[c, 2 + some]

"""Compiled loops over the cells of a tensor: energies, bits for each, and what is remembered.

A shape is that of `core.kernels`. Why compiled, and how: `core.compiled`.

Shapes: T tokens, D hidden size, n cells of a token, C = T n cells, b values of a cell, B samples.
"""

from typing import Any

import numpy as np

from elsa.core.compiled import (
    CODES,
    FLOAT,
    FLOATS,
    INTEGER,
    ROOM,
    ROWS,
    SHAPE,
    Kind,
    compiled,
    inner,
)

_LENGTHS = Kind("int64", 1)
_WORDS = Kind("uint16", 2)
_PAIR = Kind("float64", 2)


@inner
def _energy(row: Any) -> Any:
    """Sum of squares, in eight running sums."""
    a = b = c = d = e = f = g = h = 0.0
    whole = len(row) // 8 * 8
    for i in range(0, whole, 8):
        part = row[i : i + 8]
        a += np.float64(part[0]) * np.float64(part[0])
        b += np.float64(part[1]) * np.float64(part[1])
        c += np.float64(part[2]) * np.float64(part[2])
        d += np.float64(part[3]) * np.float64(part[3])
        e += np.float64(part[4]) * np.float64(part[4])
        f += np.float64(part[5]) * np.float64(part[5])
        g += np.float64(part[6]) * np.float64(part[6])
        h += np.float64(part[7]) * np.float64(part[7])
    for i in range(whole, len(row)):
        a += np.float64(row[i]) * np.float64(row[i])
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@compiled(ROWS, SHAPE, FLOATS, gives=FLOAT)
def measure(values: Any, shape: Any, found: Any) -> Any:
    """Sum of squares of each cell into `found` [C]; returns that of all."""
    cells, _ = shape
    total, at = 0.0, 0
    for t in range(len(values)):
        for c in range(len(cells)):
            found[at] = _energy(values[t, cells[c, 0] : cells[c, 1]])
            total += found[at]
            at += 1
    return total


@compiled(ROWS, ROWS, _LENGTHS, SHAPE, CODES, ROOM, FLOATS, FLOATS, gives=FLOAT)
def compare(
    values: Any,
    held: Any,
    lengths: Any,
    shape: Any,
    known: Any,
    room: Any,
    whole: Any,
    found: Any,
) -> Any:
    """Sums of squares of what changed, sample by sample.

    Args:
        values: [T, D].
        held: [T, D] what is remembered; set to zero where the change is the larger.
        lengths: [B] tokens of each sample.
        shape: cells of a token, and mixers.
        known: [B] whether a sample is remembered; cleared where its change is the larger.
        room: to work in, that of `core.kernels`.
        whole: [C] becomes the sums of values.
        found: [C] becomes the sums of values - held.

    Returns:
        Sum of squares of the values.
    """
    cells, _ = shape
    count, change = len(cells), room[0][0]
    total, begin = 0.0, 0
    for s in range(len(lengths)):
        end = begin + lengths[s]
        before, moved = 0.0, 0.0
        for t in range(begin, end):
            row, past = values[t], held[t]
            for i in range(len(change)):
                change[i] = row[i] - past[i]
            for c in range(count):
                at = t * count + c
                whole[at] = _energy(row[cells[c, 0] : cells[c, 1]])
                before += whole[at]
                if known[s]:
                    found[at] = _energy(change[cells[c, 0] : cells[c, 1]])
                    moved += found[at]
        if not known[s] or moved >= before:
            known[s] = 0
            for t in range(begin, end):
                past = held[t]
                for i in range(len(past)):
                    past[i] = 0
            for at in range(begin * count, end * count):
                found[at] = whole[at]
        total += before
        begin = end
    return total


@inner
def _least(keys: Any, parts: Any, taken: Any, wanted: Any) -> Any:
    """The key at which the parts of the largest keys first sum to `wanted`; reorders both."""
    begin, end = 0, len(keys)
    least = 0.0
    while begin < end:
        first, middle, last = keys[begin], keys[(begin + end) // 2], keys[end - 1]
        least = max(min(first, middle), min(max(first, middle), last))
        above, i, below = begin, begin, end
        over = equal = 0.0
        while i < below:
            key = keys[i]
            part = parts[i]
            if key > least:
                keys[i], parts[i] = keys[above], parts[above]
                keys[above], parts[above] = key, part
                over += part
                above += 1
                i += 1
            elif key < least:
                below -= 1
                keys[i], parts[i] = keys[below], parts[below]
                keys[below], parts[below] = key, part
            else:
                equal += part
                i += 1
        if above > begin and taken + over >= wanted:
            end = above
        elif taken + over + equal >= wanted:
            return least
        else:
            taken += over + equal
            begin = below
    return least


@compiled(FLOATS, SHAPE, FLOAT, (FLOATS,), _PAIR, CODES, CODES, FLOATS, gives=INTEGER)
def choose(
    held: Any,
    shape: Any,
    allowed: float,
    steps: Any,
    pair: Any,
    bits: Any,
    below: Any,
    scale: Any,
) -> Any:
    """The fewest bits that leave out at most `allowed` of the energy; four each if none do.

    Args:
        held: [C] energies.
        shape: cells of a token, and mixers.
        allowed: energy.
        steps: parts [5] of a cell's energy that the first, second .. bit brings; the last is 0.
        pair: [2, 4 C] to work in.
        bits: [C + 8]; become the bits of each cell, and zeros.
        below: [C] become the eighths of an octave that its scale is below the largest.
        scale: [1] becomes the largest root mean square of what is sent.

    Returns:
        Bytes of scales and codes.
    """
    cells, _ = shape
    (parts,) = steps
    count, n = len(held), len(cells)
    total, rows, size = 0.0, 0, 0
    scale[0] = 0.0
    for at in range(len(bits)):
        bits[at] = 0
    for at in range(count):
        total += held[at]
    if total <= allowed:
        return size
    keys, gains = pair[0], pair[1]
    for at in range(count):
        width = cells[at % n, 1] - cells[at % n, 0]
        for k in range(4):
            gains[rows] = held[at] * parts[k]
            keys[rows] = gains[rows] / width
            rows += 1
    least = _least(keys, gains, 0.0, total - allowed)
    largest = 0.0
    for at in range(count):
        width = cells[at % n, 1] - cells[at % n, 0]
        some = 0
        while some < 4 and held[at] > 0 and held[at] * parts[some] / width >= least:
            some += 1
        bits[at] = some
        if some:
            size += 1 + cells[at % n, 2 + some]
            largest = max(largest, held[at] / width)
    for at in range(count):
        if bits[at]:
            width = cells[at % n, 1] - cells[at % n, 0]
            down = np.rint(4.0 * np.log2(largest / (held[at] / width)))
            below[at] = np.uint8(min(255.0, max(0.0, down)))
    scale[0] = np.sqrt(largest)
    return size


@compiled(ROWS, _LENGTHS, CODES, INTEGER, _WORDS, CODES, gives=INTEGER)
def settle(held: Any, lengths: Any, bits: Any, n: int, out: Any, moved: Any) -> Any:
    """Round to bfloat16 what is remembered, and say what changed.

    Args:
        held: [T, D].
        lengths: [B] tokens of each sample.
        bits: [C + 8] of each cell.
        n: cells of a token.
        out: [T, D] becomes the bits of the bfloat16 values.
        moved: [B] becomes whether any cell of a sample has bits.

    Returns:
        1 if all values are finite, else 0.
    """
    words = held.view(np.uint32)
    top = np.uint32(0x7F800000)
    odd = False
    begin = 0
    for s in range(len(lengths)):
        end = begin + lengths[s]
        some = 0
        for at in range(begin * n, end * n):
            some |= bits[at]
        moved[s] = some > 0
        for t in range(begin, end):
            row, short = words[t], out[t]
            for i in range(len(row)):
                word = row[i] + np.uint32(0x7FFF) + ((row[i] >> np.uint32(16)) & np.uint32(1))
                short[i] = word >> np.uint32(16)
                odd |= (row[i] & top == top) | (word & top == top)
        begin = end
    return 0 if odd else 1

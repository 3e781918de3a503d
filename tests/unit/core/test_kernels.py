"""Compiled loops do what plain numpy does, value by value."""

import math
from typing import Any

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import from_numpy

from elsa.core import gauss, kernels
from elsa.core.cells import Cells, room
from elsa.core.compiled import Fixed

Floats = NDArray[np.float32]
WIDTHS = [
    (96,),
    (384,),
    (24, 72, 288),
    (576,),
    (144, 336),
    (896,),
    (1,),
    (7,),
    (2, 3, 9),
    (25, 10),
    (6, 31, 4),
]
LEVELS = np.zeros((5, 16))
for _bits in gauss.BITS:
    LEVELS[_bits, : 2**_bits] = gauss.levels(_bits)
OCTAVES = np.exp2(np.arange(256) / -8)
STEPS = Fixed(kernels.STEPS, (from_numpy(LEVELS), from_numpy(OCTAVES)))
shapes = st.tuples(st.sampled_from(WIDTHS), st.integers(0, 4), st.integers(0, 2**20))


def draw(widths: tuple[int, ...], tokens: int, seed: int) -> Floats:
    noise = np.random.default_rng(seed)
    spread = np.exp(noise.standard_normal((tokens, 1)))
    return (noise.standard_normal((tokens, sum(widths))) * spread).astype(np.float32)


def dirty(hidden: int) -> Fixed:
    """What loops work in, full of what must not matter."""
    found = room(hidden)
    for tensor in found.tensors:
        tensor.fill_(255 if tensor.dtype is torch.uint8 else math.nan)
    return found


def read(payload: NDArray[np.uint8], tokens: int, cells: Cells, bits: NDArray[np.uint8]) -> int:
    spare = torch.full((len(bits),), 255, dtype=torch.uint8)
    size: int = kernels.read(payload.tobytes(), tokens, cells.shape, spare, from_numpy(bits))
    return size


def mix(values: Floats, cells: Cells, out: Floats) -> None:
    kernels.mix(from_numpy(values), cells.shape, dirty(values.shape[1]), from_numpy(out))


def write(values: Floats, held: Floats, turn: Any, *given: Any) -> None:
    bits, below, largest, out = given
    coded = (from_numpy(bits), from_numpy(below), largest, STEPS, dirty(values.shape[1]))
    kernels.write(from_numpy(values), from_numpy(held), *turn, *coded, from_numpy(out))


def expand(payload: NDArray[np.uint8], turn: Any, *given: Any) -> None:
    bits, largest, into = given
    coded = (from_numpy(bits), largest, STEPS, dirty(into.shape[1]))
    kernels.expand(payload.tobytes(), *turn, *coded, from_numpy(into))


def sylvester(size: int) -> NDArray[np.float64]:
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.kron(np.array([[1, 1], [1, -1]]), matrix)
    return matrix / math.sqrt(size)


def rotation(width: int) -> NDArray[np.float64]:
    odd = width // (width & -width)
    place = np.arange(odd)
    angle = 2 * np.pi * np.outer(place, place) / odd
    hartley = (np.cos(angle) + np.sin(angle)) / math.sqrt(odd)
    return np.kron(hartley, sylvester(width // odd))


def bits_of(cells: int, seed: int) -> NDArray[np.uint8]:
    """Bits of cells [C + 8], all sorts of them."""
    kind = seed % 7
    bits = np.full(cells, kind) if kind < 5 else np.random.default_rng(seed).integers(0, 5, cells)
    return np.append(bits, np.zeros(8)).astype(np.uint8)


def in_planes(codes: list[int], bits: int) -> bytes:
    """What the module's text says of the codes of a cell, word by word."""
    if not bits:
        return b""
    if bits == 3:
        return in_planes([code & 3 for code in codes], 2) + in_planes(
            [code >> 2 for code in codes], 1
        )
    size = math.ceil(len(codes) * bits / 8)
    out = [0] * size
    for place, code in enumerate(codes):
        out[place % size] |= code << (place // size * bits)
    return bytes(out)


@settings(deadline=None, max_examples=40)
@given(shapes)
def test_mix_is_a_product_with_a_dense_matrix(shape: Any) -> None:
    widths, tokens, seed = shape
    values, cells = draw(widths, tokens, seed), Cells(widths)
    found, begin = np.empty_like(values), 0
    mix(values, cells, found)
    for width in widths:
        wanted = values[:, begin : begin + width].astype(float) @ rotation(width)
        np.testing.assert_allclose(found[:, begin : begin + width], wanted, atol=1e-4)
        begin += width


@settings(deadline=None, max_examples=60)
@given(shapes)
@example(((384,), 3, 4))
@example(((24, 72, 288), 3, 0))
@example(((96,), 0, 3))
def test_payload_is_what_the_text_says(shape: Any) -> None:
    widths, tokens, seed = shape
    cells, n = Cells(widths), len(widths)
    values, held = draw(widths, tokens, seed), draw(widths, tokens, seed + 1)
    bits = bits_of(tokens * n, seed)
    below = np.random.default_rng(seed).integers(0, 20, tokens * n).astype(np.uint8)
    ends, chosen = np.cumsum((0, *widths)), bits[: tokens * n].tolist()
    bodies, wanted = [], held.copy()
    for cell, some in enumerate(chosen):
        if not some:
            continue
        t, part = cell // n, slice(ends[cell % n], ends[cell % n + 1])
        scaled = (LEVELS[some, : 2**some] * (1.5 * OCTAVES[below[cell]])).astype(np.float32)
        edges = (scaled[1:] + scaled[:-1]) * np.float32(0.5)
        change = values[t, part] - held[t, part]
        codes = (change[:, None] > edges).sum(1)
        bodies.append(in_planes(codes.tolist(), some))
        wanted[t, part] += scaled[codes]
    scales = bytes(int(it) for it, some in zip(below, chosen, strict=True) if some)
    payload = in_planes(chosen, 3) + scales + b"".join(bodies)
    out = np.empty(len(payload), np.uint8)
    turn = (cells.shape, torch.empty(0))
    mine = held.copy()
    write(values, mine, turn, bits, below, 1.5, out)
    assert out.tobytes() == payload
    assert np.array_equal(mine, wanted)
    again = np.empty_like(bits)
    assert read(out, tokens, cells, again) == len(payload)
    assert again[: tokens * n].tolist() == chosen
    theirs = held.copy()
    expand(out, turn, again, 1.5, theirs)
    assert np.array_equal(theirs, wanted)


@settings(deadline=None, max_examples=40)
@given(shapes)
def test_with_signs_codes_are_those_of_the_rotated_values(shape: Any) -> None:
    widths, tokens, seed = shape
    cells, n, hidden = Cells(widths), len(widths), sum(widths)
    values, bits = draw(widths, tokens, seed), bits_of(tokens * n, seed)
    signs = np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), hidden)
    below, none = np.zeros(tokens * n, np.uint8), torch.empty(0)
    turned = values * signs
    mix(turned, cells, turned)
    outs = []
    for source, flips in ((values, from_numpy(signs)), (turned, none)):
        out = np.empty(3 * values.size + 99, np.uint8)
        nobody = np.empty((0, hidden), np.float32)
        turn = (cells.shape, flips)
        write(source, nobody, turn, bits, below, 1.0, out)
        outs.append(out[: read(out, tokens, cells, bits.copy())])
    assert outs[0].tobytes() == outs[1].tobytes()
    mine, theirs, plain = (np.zeros_like(values) for _ in range(3))
    turned_back = (cells.shape, from_numpy(signs))
    write(values, mine, turned_back, bits, below, 1.0, outs[0])
    expand(outs[0], turned_back, bits, 1.0, theirs)
    expand(outs[0], turn, bits, 1.0, plain)
    mix(plain, cells, plain)
    assert np.array_equal(mine, theirs)
    np.testing.assert_allclose(theirs, plain * signs, atol=1e-5)

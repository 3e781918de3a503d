"""Energies, bits and memory: compiled loops do what plain numpy does, value by value."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import from_numpy

from elsa.core import allot, gauss
from elsa.core.cells import Cells, room
from elsa.core.compiled import FLOATS, Fixed

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
PARTS = np.append(-np.diff([gauss.distortion(bits) for bits in range(5)]), 0.0)
OCTAVES = np.exp2(np.arange(256) / -8)
shapes = st.tuples(st.sampled_from(WIDTHS), st.integers(0, 4), st.integers(0, 2**20))


def draw(widths: tuple[int, ...], tokens: int, seed: int) -> Floats:
    noise = np.random.default_rng(seed)
    spread = np.exp(noise.standard_normal((tokens, 1)))
    return (noise.standard_normal((tokens, sum(widths))) * spread).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(shapes)
def test_measure_sums_squares_of_each_cell(shape: Any) -> None:
    widths, tokens, seed = shape
    values, cells = draw(widths, tokens, seed), Cells(widths)
    found = np.empty(tokens * len(widths))
    total = allot.measure(from_numpy(values), cells.shape, from_numpy(found))
    pieces = np.split(values.astype(float), np.cumsum(widths)[:-1], axis=1)
    wanted = np.stack([np.square(piece).sum(1) for piece in pieces], 1).reshape(-1)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert total == pytest.approx(wanted.sum(), rel=1e-12)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 17, 95])
def test_one_value_that_is_not_finite_shows_in_the_sum(odd: float, place: int) -> None:
    values = np.ones((2, 96), np.float32)
    values[1, place] = odd
    found = np.empty(2)
    total = allot.measure(from_numpy(values), Cells((96,)).shape, from_numpy(found))
    assert not math.isfinite(total)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([(8,), (4, 12, 48)]),
    st.lists(st.floats(0, 1e6) | st.just(1.0), max_size=12),
    st.floats(0.1, 0.99),
)
def test_bits_are_those_of_a_sort(
    widths: tuple[int, ...], energies: list[float], error: float
) -> None:
    n = len(widths)
    held = np.array(energies[: len(energies) // n * n])
    allowed = error**2 * held.sum()
    bits, below = np.full(len(held) + 8, 255, np.uint8), np.empty(len(held), np.uint8)
    scale, count = np.full(1, np.nan), 4 * len(held)
    size = allot.choose(
        from_numpy(held),
        Cells(widths).shape,
        allowed,
        Fixed((FLOATS,), (from_numpy(PARTS),)),
        torch.full((2, count), math.nan).double(),
        from_numpy(bits),
        from_numpy(below),
        from_numpy(scale),
    )
    largest = float(scale[0])
    width = np.tile(widths, len(held) // n)
    gains = held[:, None] * PARTS[:4]
    keys = gains / width[:, None]
    order = np.argsort(-keys, axis=None, kind="stable")
    left = held.sum() - np.cumsum(gains.reshape(-1)[order])
    wanted = np.zeros(len(held))
    if held.sum() > allowed:
        first = int(np.argmax(left <= allowed * (1 + 1e-12)))
        wanted = ((keys >= keys.reshape(-1)[order][first]) & (held[:, None] > 0)).sum(1)
    assert bits[: len(held)].tolist() == wanted.tolist()
    sent = wanted > 0
    assert largest == pytest.approx(np.sqrt((held / width)[sent].max(initial=0)))
    scales = largest * OCTAVES[below[: len(held)][sent]]
    true = np.sqrt((held / width)[sent])
    reached = true > largest * OCTAVES[-1]
    np.testing.assert_allclose(scales[reached], true[reached], rtol=2 ** (1 / 16) - 1 + 1e-9)
    pieces = {0: (), 1: (1,), 2: (2,), 3: (2, 1), 4: (4,)}
    codes = [
        math.ceil(values * part / 8)
        for values, some in zip(width, wanted.astype(int), strict=True)
        for part in pieces[some]
    ]
    assert size == sent.sum() + sum(codes)


@settings(deadline=None, max_examples=60)
@given(shapes, st.data())
def test_compare_lets_go_of_what_moved_too_far(shape: Any, data: st.DataObject) -> None:
    widths, _, seed = shape
    lengths = np.array(data.draw(st.lists(st.integers(1, 3), max_size=4)), np.int64)
    tokens, cells = int(lengths.sum()), Cells(widths)
    values = draw(widths, tokens, seed)
    near = np.repeat(
        data.draw(st.lists(st.booleans(), min_size=4, max_size=4))[: len(lengths)], lengths
    ).astype(np.float32)[:, None]
    held = near * 0.9 * values + (1 - near) * -values
    known = np.array([it % 2 for it in range(seed, seed + len(lengths))], np.uint8)
    held *= np.repeat(known, lengths)[:, None]
    mine, still, found = held.copy(), known.copy(), np.empty(tokens * len(widths))
    room(sum(widths)).tensors[0].fill_(math.nan)
    total = allot.compare(
        from_numpy(values),
        from_numpy(mine),
        from_numpy(lengths),
        cells.shape,
        from_numpy(still),
        room(sum(widths)),
        torch.full((len(found),), math.nan).double(),
        from_numpy(found),
    )
    owner = np.repeat(np.arange(len(lengths)), lengths)
    keep = known.astype(bool) & np.array(
        [
            np.square(values - held)[owner == s].sum() < np.square(values)[owner == s].sum()
            for s in range(len(lengths))
        ],
        bool,
    )
    assert still.astype(bool).tolist() == keep.tolist()
    wanted = held * keep[owner][:, None]
    assert np.array_equal(mine, wanted)
    due = np.empty_like(found)
    allot.measure(from_numpy(values - wanted), cells.shape, from_numpy(due))
    np.testing.assert_allclose(found, due, rtol=1e-12)
    assert total == pytest.approx(float(np.square(values.astype(float)).sum()), rel=1e-12)


def settled(values: Floats, bits: list[int], lengths: list[int]) -> tuple[bool, Any, list[int]]:
    out = np.empty(values.shape, np.uint16)
    moved = np.empty(len(lengths), np.uint8)
    padded = np.array([*bits, *([7] * 8)], np.uint8)
    count = len(bits) // max(1, len(values))
    known = torch.tensor(lengths, dtype=torch.int64)
    arrays = (from_numpy(padded), count, from_numpy(out), from_numpy(moved))
    fine = allot.settle(from_numpy(values), known, *arrays)
    return bool(fine), out, moved.tolist()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=1, max_size=9))
def test_settle_rounds_as_torch_does(values: list[float]) -> None:
    rows = np.array([values], np.float32)
    fine, out, _ = settled(rows, [1], [1])
    wanted = torch.from_numpy(rows).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert fine
    assert np.array_equal(out, wanted)


@pytest.mark.parametrize(
    "word", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F7FFFFF]
)
def test_settle_sees_what_is_or_becomes_infinite(word: int) -> None:
    rows = np.zeros((3, 4), np.float32)
    rows.view(np.uint32)[1, 2] = word
    assert not settled(rows, [1, 1, 1], [2, 1])[0]


def test_settle_tells_which_samples_were_sent_anything() -> None:
    rows = np.zeros((4, 6), np.float32)
    assert settled(rows, [0, 0, 0, 3, 0, 0, 0, 4], [1, 1, 1, 1])[2] == [0, 1, 0, 1]
    assert settled(rows, [0, 0, 0, 1, 0, 0, 0, 0], [2, 2])[2] == [1, 0]
    assert settled(rows[:0], [], [])[2] == []

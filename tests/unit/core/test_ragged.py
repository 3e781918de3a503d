"""Packing: what goes in comes out, padding never does, and gradients follow the same way."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.ragged import (
    chosen_by,
    flat_index,
    marks_of,
    mask_of,
    pack,
    predicting,
    reached,
    reached_lengths,
    unpack,
)

D = 3
lengths_of_batches = st.lists(st.integers(1, 6), min_size=1, max_size=5)
margins = st.integers(0, 3)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def shape_of(lengths: list[int], margin: int) -> tuple[int, int, Tensor]:
    """Rows, width and index of a batch padded `margin` beyond its longest sequence."""
    width = max(lengths) + margin
    return len(lengths), width, flat_index(lengths, width)


def test_mask_by_hand() -> None:
    assert mask_of([2, 3]).tolist() == [[1, 1, 0], [1, 1, 1]]
    assert mask_of((1,), 3).tolist() == [[1, 0, 0]]
    assert mask_of([2]).dtype == torch.int64


def test_index_by_hand() -> None:
    assert flat_index([2, 1], 3).tolist() == [0, 1, 3]


@settings(deadline=None)
@given(lengths_of_batches, margins)
def test_mask_counts_the_tokens_of_each_sequence(lengths: list[int], margin: int) -> None:
    rows, width, _ = shape_of(lengths, margin)
    mask = mask_of(lengths, width)
    assert mask.shape == (rows, width)
    assert mask.sum(1).tolist() == lengths
    assert bool((mask.diff(dim=1) <= 0).all())  # tokens first, then padding


@settings(deadline=None)
@given(lengths_of_batches, margins)
def test_pack_takes_each_sequence_in_turn(lengths: list[int], margin: int) -> None:
    rows, width, index = shape_of(lengths, margin)
    padded = numbers(rows, width, D)
    expected = torch.cat([row[:length] for row, length in zip(padded, lengths, strict=True)])
    assert torch.equal(pack(padded, index), expected)


@settings(deadline=None)
@given(lengths_of_batches, margins)
def test_pack_inverts_unpack(lengths: list[int], margin: int) -> None:
    rows, width, index = shape_of(lengths, margin)
    packed = numbers(sum(lengths), D)
    assert torch.equal(pack(unpack(packed, index, rows, width), index), packed)


@settings(deadline=None)
@given(lengths_of_batches, margins)
def test_unpack_inverts_pack_and_zeroes_the_padding(lengths: list[int], margin: int) -> None:
    rows, width, index = shape_of(lengths, margin)
    padded = numbers(rows, width, D)
    expected = padded * mask_of(lengths, width)[:, :, None]
    assert torch.equal(unpack(pack(padded, index), index, rows, width), expected)


@settings(deadline=None)
@given(lengths_of_batches, margins)
def test_each_is_the_adjoint_of_the_other(lengths: list[int], margin: int) -> None:
    # <pack(x), y> = <x, unpack(y)>, so hop 4 is the exact transpose of hop 1.
    rows, width, index = shape_of(lengths, margin)
    x, y = numbers(rows, width, D), numbers(sum(lengths), D, seed=1)
    left = (pack(x, index) * y).sum()
    right = (x * unpack(y, index, rows, width)).sum()
    torch.testing.assert_close(left, right)


@settings(deadline=None)
@given(lengths_of_batches, margins)
def test_gradients_flow_as_the_adjoint(lengths: list[int], margin: int) -> None:
    rows, width, index = shape_of(lengths, margin)
    x = numbers(rows, width, D).requires_grad_()
    y = numbers(sum(lengths), D, seed=1).requires_grad_()
    (to_x,) = torch.autograd.grad(pack(x, index), x, y.detach())
    (to_y,) = torch.autograd.grad(unpack(y, index, rows, width), y, x.detach())
    assert torch.equal(to_x, unpack(y.detach(), index, rows, width))
    assert torch.equal(to_y, pack(x.detach(), index))


def test_full_batch_is_not_copied() -> None:
    packed = numbers(4, D)
    assert unpack(packed, flat_index([2, 2]), 2, 2).data_ptr() == packed.data_ptr()


def test_arguments_are_not_changed() -> None:
    packed = numbers(3, D)
    before = packed.clone()
    unpack(packed, flat_index([2, 1], 2), 2, 2).sum()
    assert torch.equal(packed, before)


@pytest.mark.parametrize("lengths", [[2, 2], [2, 1]])
def test_transposed_memory_is_fine(lengths: list[int]) -> None:
    # What autograd returns need not be contiguous; both ways through `unpack` must take it.
    packed = numbers(D, sum(lengths)).T
    index = flat_index(lengths, 2)
    assert torch.equal(pack(unpack(packed, index, 2, 2), index), packed)


@settings(deadline=None)
@given(lengths_of_batches, st.integers(0, 2**30), margins)
def test_what_predicts_a_label_that_counts_is_chosen(
    lengths: list[int], seed: int, margin: int
) -> None:
    width = max(lengths) + margin
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (len(lengths), width), generator=generator) * 107 - 100
    labels[mask_of(lengths, width) == 0] = -100
    chosen = predicting(labels, lengths, -100)
    end = 0
    for row, length in zip(labels, lengths, strict=True):
        begin, end = end, end + length
        due = [place for place in range(length - 1) if row[place + 1] != -100]
        assert chosen[begin:end].nonzero()[:, 0].tolist() == (due or [length - 1])
    found = chosen_by(marks_of(chosen), len(chosen))
    assert found is not None
    assert torch.equal(found, chosen)
    padded = numbers(len(lengths), width, D)
    some = reached(padded, lengths, "some", chosen)
    assert torch.equal(some, reached(padded, lengths, "all")[chosen])
    assert sum(reached_lengths(lengths, "some", chosen)) == len(some)


def test_nobody_chooses_without_marks() -> None:
    assert marks_of(None) == b""
    assert chosen_by(b"", 5) is None

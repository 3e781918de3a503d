"""Batches: every row once an epoch, padding where the mask says, going on after a restore."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elsa.data.batches import IGNORE, Batch, BatchStream, Examples, eval_batches, make_batch
from elsa.errors import DataError

PAD = 99


def examples(lengths: list[int], labelled: bool = True, types: bool = False) -> Examples:
    """Row n holds the token ids n + 100 (never PAD), so that every row can be told by its ids."""
    return Examples(
        [np.full(length, row + 100, np.int32) for row, length in enumerate(lengths)],
        [np.full(length, 1, np.int32) for length in lengths] if types else None,
        np.arange(len(lengths)) * 7 if labelled else None,
    )


LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=70)
SIZES = st.integers(1, 9)


def same(a: Batch, b: Batch) -> bool:
    return (
        a.rows == b.rows
        and a.lengths == b.lengths
        and torch.equal(a.input_ids, b.input_ids)
        and torch.equal(a.mask, b.mask)
        and torch.equal(a.labels, b.labels)
    )


@given(LENGTHS, st.booleans(), st.data())
def test_rows_taken_from_a_batch_are_the_batch_of_these_rows(
    lengths: list[int], labelled: bool, data: st.DataObject
) -> None:
    rows, every = data.draw(st.permutations(range(len(lengths)))), examples(lengths, labelled)
    places = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, unique=True))
    taken = make_batch(every, rows, PAD).take(places)
    assert same(taken, make_batch(every, [rows[place] for place in places], PAD))


@given(LENGTHS, SIZES, st.booleans(), st.integers(0, 2**32))
def test_every_row_comes_once_an_epoch(
    lengths: list[int], size: int, bucketing: bool, seed: int
) -> None:
    stream = BatchStream(examples(lengths), size, seed, bucketing, PAD)
    for _ in range(2):
        epoch = list(islice(stream, stream.batches_per_epoch))
        assert sorted(row for batch in epoch for row in batch.rows) == list(range(len(lengths)))
        sizes = Counter(len(batch.rows) for batch in epoch)
        full, rest = divmod(len(lengths), size)
        assert sizes == Counter({size: full}) + Counter({rest: 1 if rest else 0})


@given(LENGTHS, SIZES, st.booleans(), st.integers(0, 30))
def test_a_restored_stream_goes_on_as_the_uninterrupted_one(
    lengths: list[int], size: int, bucketing: bool, position: int
) -> None:
    whole = BatchStream(examples(lengths), size, 3, bucketing, PAD)
    for _ in range(position):
        next(whole)
    assert whole.position == position
    restored = BatchStream(examples(lengths), size, 3, bucketing, PAD)
    restored.position = position
    for a, b in islice(zip(whole, restored, strict=True), 12):
        assert same(a, b)


def test_a_position_can_be_set_back() -> None:
    # A cached plan of a later epoch must not be served for an earlier one.
    stream = BatchStream(examples([1] * 20), 4, 0, False, PAD)
    first = list(islice(stream, 5))
    next(stream)
    stream.position = 0
    assert all(same(a, b) for a, b in zip(first, islice(stream, 5), strict=True))


@pytest.mark.parametrize("bucketing", [True, False])
def test_epochs_and_seeds_differ(bucketing: bool) -> None:
    def order(seed: int, epoch: int) -> list[tuple[int, ...]]:
        stream = BatchStream(examples([1, 2, 3, 4] * 10), 4, seed, bucketing, PAD)
        stream.position = epoch * stream.batches_per_epoch
        return [batch.rows for batch in islice(stream, stream.batches_per_epoch)]

    orders = [order(0, 0), order(0, 1), order(1, 0), order(1, 1)]
    assert all(a != b for n, a in enumerate(orders) for b in orders[:n])


@given(LENGTHS, SIZES, st.booleans(), st.booleans())
def test_padding_is_exactly_where_the_mask_is_zero(
    lengths: list[int], size: int, labelled: bool, types: bool
) -> None:
    rows = examples(lengths, labelled, types)
    for batch in eval_batches(rows, size, PAD):
        width = max(batch.lengths)
        assert batch.input_ids.shape == batch.mask.shape == (len(batch.rows), width)
        assert torch.equal(batch.input_ids == PAD, batch.mask == 0)
        for place, (row, length) in enumerate(zip(batch.rows, batch.lengths, strict=True)):
            assert length == lengths[row]
            assert batch.input_ids[place].tolist() == [row + 100] * length + [PAD] * (
                width - length
            )
            assert batch.mask[place].tolist() == [1] * length + [0] * (width - length)
            if types:
                assert batch.token_types is not None
                assert torch.equal(batch.token_types[place], batch.mask[place])
            if labelled:
                assert batch.labels[place] == row * 7
            else:
                expected = [row + 100] * length + [-100] * (width - length)
                assert batch.labels[place].tolist() == expected
        if not types:
            assert batch.token_types is None
        assert {batch.input_ids.dtype, batch.mask.dtype, batch.labels.dtype} == {torch.int64}


@given(LENGTHS, SIZES)
def test_evaluation_takes_each_row_once_longest_first(lengths: list[int], size: int) -> None:
    batches = list(eval_batches(examples(lengths), size, PAD))
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(lengths)))
    flat = [length for batch in batches for length in batch.lengths]
    assert flat == sorted(lengths, reverse=True)


def test_bucketing_reduces_padding_and_stays_shuffled() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 1000).tolist()

    def epoch(bucketing: bool) -> list[Batch]:
        stream = BatchStream(examples(lengths), 16, 0, bucketing, PAD)
        return list(islice(stream, stream.batches_per_epoch))

    def padded(batches: list[Batch]) -> int:
        return sum(int((batch.mask == 0).sum()) for batch in batches)

    assert padded(epoch(True)) < 0.2 * padded(epoch(False))
    longest = np.array([max(batch.lengths) for batch in epoch(True)])
    rises = np.mean(np.diff(longest) > 0)
    assert 0.3 < rises < 0.7  # batches sorted by length would only rise or only fall


def test_take_keeps_rows_together() -> None:
    some = examples([1, 2, 3], types=True).take([2, 0])
    assert [ids.tolist() for ids in some.input_ids] == [[102] * 3, [100]]
    assert some.token_types is not None
    assert [len(types) for types in some.token_types] == [3, 1]
    assert some.labels is not None
    assert some.labels.tolist() == [14, 0]


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match="there are no rows"):
        BatchStream(examples([]), 4, 0, True, PAD)
    with pytest.raises(DataError, match=r"row 1 \(counting from 0\) has no tokens"):
        examples([2, 0])
    assert list(eval_batches(examples([]), 4, PAD)) == []


@pytest.mark.parametrize("bucketing", [False, True])
def test_lengths_of_an_epoch_are_told_ahead(bucketing: bool) -> None:
    rows = Examples([np.full(length, 5, np.int32) for length in (3, 1, 4, 1, 5, 9, 2)])
    stream = BatchStream(rows, 2, seed=3, bucketing=bucketing, pad_id=0)
    told = [*stream.epoch_lengths(), *stream.epoch_lengths(1)]
    assert stream.position == 0
    assert told == [next(stream).lengths for _ in range(2 * stream.batches_per_epoch)]


@pytest.mark.parametrize("bucketing", [False, True])
def test_tokens_to_predict_are_told_ahead(bucketing: bool) -> None:
    rng = np.random.default_rng(0)
    ids = [np.full(length, 5, np.int32) for length in (3, 1, 4, 1, 5, 9, 2)]
    for counted in (None, [rng.random(len(row)) < 0.5 for row in ids]):
        stream = BatchStream(Examples(ids, counted=counted), 2, 3, bucketing, 0)
        told = [*stream.epoch_predicted(), *stream.epoch_predicted(1)]
        batches = [next(stream) for _ in range(2 * stream.batches_per_epoch)]
        counts = [(batch.labels[:, 1:] != IGNORE).sum(1) for batch in batches]
        assert told == [tuple(each.tolist()) for each in counts]

"""Counts of right predictions, against loops that anyone can read."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.score import IGNORED, Tally, tally


def naive(pairs: list[tuple[Tensor, int]]) -> Tally:
    """Row by row: a prediction is right if nothing scores higher."""
    losses = [float(torch.logsumexp(scores, 0) - scores[label]) for scores, label in pairs]
    right = [int(scores.argmax()) == label for scores, label in pairs]
    return Tally(len(pairs), sum(right), sum(losses))


def same(got: Tally, expected: Tally) -> None:
    assert (got.items, got.correct) == (expected.items, expected.correct)
    assert got.loss == pytest.approx(expected.loss, rel=1e-5, abs=1e-5)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 7), st.integers(2, 5))
def test_classification_counts_rows(seed: int, rows: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator)
    labels = torch.randint(classes, (rows,), generator=generator)
    same(tally(logits, labels), naive(list(zip(logits, labels.tolist(), strict=True))))


@settings(deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_language_model_counts_the_token_after_each(seed: int, lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, width = len(lengths), max(lengths)
    logits = torch.randn(rows, width, 9, generator=generator)
    labels = torch.randint(9, (rows, width), generator=generator)
    for row, length in enumerate(lengths):
        labels[row, length:] = IGNORED
    pairs = [
        (logits[row, place], int(labels[row, place + 1]))
        for row, length in enumerate(lengths)
        for place in range(length - 1)
    ]
    same(tally(logits, labels), naive(pairs))


def test_batches_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 3, generator=generator)
    labels = torch.randint(3, (10,), generator=generator)
    same(tally(logits[:4], labels[:4]) + tally(logits[4:], labels[4:]), tally(logits, labels))


def test_rates_by_hand() -> None:
    even = tally(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))
    assert even.accuracy == 0.75
    assert even.mean_loss == pytest.approx(math.log(2))


def test_nothing_counted_is_zero_and_no_division() -> None:
    empty = tally(torch.randn(2, 1, 5), torch.tensor([[1], [2]]))
    assert empty == Tally() == Tally(0, 0, 0.0)
    assert (empty.accuracy, empty.mean_loss) == (0.0, 0.0)


def test_loss_is_taken_in_float32() -> None:
    logits = torch.randn(64, 3, generator=torch.Generator().manual_seed(1)).bfloat16()
    labels = torch.zeros(64, dtype=torch.long)
    assert tally(logits, labels).loss == tally(logits.float(), labels).loss


@settings(deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_a_text_is_whole_if_each_of_its_predictions_is_right(seed: int, lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((len(lengths), max(lengths)), IGNORED)
    for row, length in enumerate(lengths):
        labels[row, :length] = torch.randint(2, (length,), generator=generator)
    logits = torch.randn(*labels.shape, 2, generator=generator)
    right = [
        [int(logits[row, at].argmax()) == int(labels[row, at + 1]) for at in range(length - 1)]
        for row, length in enumerate(lengths)
    ]
    got = tally(logits, labels)
    assert got.texts == sum(bool(row) for row in right)
    assert got.whole == sum(bool(row) and all(row) for row in right)
    assert got.whole_share == (got.whole / got.texts if got.texts else 0.0)

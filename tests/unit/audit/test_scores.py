"""Scores: by hand where they can be, and intervals that hold what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elsa.audit.scores import auc, auc_score, rouge_l, share
from elsa.errors import DataError

words = st.lists(st.integers(0, 4), max_size=12)


@given(words, words)
def test_rouge_l_is_symmetric_and_one_only_for_equal_texts(one: list[int], two: list[int]) -> None:
    score = rouge_l(one, two)
    assert score == rouge_l(two, one)
    assert 0 <= score <= 1
    if one and two:
        assert (score == 1) == (one == two)


def test_rouge_l_by_hand() -> None:
    # longest common subsequence 1 3 4, of texts of 4 and 5 tokens
    assert rouge_l([1, 2, 3, 4], [1, 3, 5, 4, 6]) == pytest.approx(2 * 3 / 9)
    assert rouge_l([], [1]) == 0


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_auc_is_the_share_of_pairs_in_the_right_order(one: list[int], two: list[int]) -> None:
    pairs = [(a > b) + 0.5 * (a == b) for a in one for b in two]
    assert auc(one, two) == pytest.approx(np.mean(pairs))
    assert auc(one, two) + auc(two, one) == pytest.approx(1)


def test_a_share_weighs_texts_by_their_items() -> None:
    score = share([1, 0], [1, 3], 0.1, 0)
    assert score.value == 0.25
    assert score.low == 0 and score.high == 1
    assert (score.chance, score.units) == (0.1, 2)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for draw in range(200):
        score = share(generator.random(60) < 0.3, None, 0, draw)
        held += score.low <= 0.3 <= score.high
    assert 180 <= held <= 199


def test_intervals_are_over_texts_so_one_long_text_does_not_make_them_narrow() -> None:
    one_text, many = share([500, 0], [500, 500], 0, 0), share([1] * 500 + [0] * 500, None, 0, 0)
    assert one_text.high - one_text.low > 5 * (many.high - many.low)


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    hits = [1, 0, 1, 1, 0, 1, 0, 0, 1]
    assert share(hits, None, 0, 3) == share(hits, None, 0, 3)
    assert auc_score([1, 2, 3], [0, 2], 1) == auc_score([1, 2, 3], [0, 2], 1)
    spread = np.linspace(0, 1, 97)
    assert share(spread, None, 0, 3) != share(spread, None, 0, 4)


def test_nothing_to_score_is_said() -> None:
    with pytest.raises(DataError, match="no score"):
        share([], None, 0, 0)

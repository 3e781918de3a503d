"""Means, spreads and paired differences: cases by hand, and laws."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elsa.compare.numbers import difference, spread

scores = st.dictionaries(st.integers(0, 9), st.floats(0, 1), min_size=1, max_size=6)


def test_spread_by_hand() -> None:
    held = spread([0.5, None, 0.7, 0.6])
    assert held is not None
    assert (held.mean, held.least, held.most, held.count) == (pytest.approx(0.6), 0.5, 0.7, 3)
    assert held.deviation == pytest.approx(0.1)
    assert spread([None]) is None
    assert spread([0.5]).deviation is None  # type: ignore[union-attr]


def test_difference_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t of 2 degrees 4.3027."""
    found = difference({0: 2.0, 1: 4.0, 2: 6.0, 3: 9.0}, {0: 1.0, 1: 2.0, 2: 3.0, 4: 0.0})
    assert found is not None
    assert (found.mean, found.count) == (2.0, 3)
    half = 4.302653 / math.sqrt(3)
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert not found.certain


def test_one_seed_has_no_interval_and_none_no_difference() -> None:
    one = difference({0: 0.9}, {0: 0.8, 1: 0.1})
    assert one is not None
    assert (one.low, one.high, one.certain) == (None, None, False)
    assert difference({0: 0.9, 1: None}, {1: 0.8, 2: 0.1}) is None


@given(scores, scores)
def test_a_difference_turns_its_sign_with_its_ends(
    ours: dict[int, float], theirs: dict[int, float]
) -> None:
    there, back = difference(ours, theirs), difference(theirs, ours)
    if there is None or back is None:
        assert not ours.keys() & theirs.keys()
        return
    assert there.mean == pytest.approx(-back.mean)
    if there.low is not None and back.high is not None:
        assert there.low == pytest.approx(-back.high)


@given(scores)
def test_a_method_differs_from_itself_by_nothing(own: dict[int, float]) -> None:
    found = difference(own, own)
    assert found is not None
    assert (found.mean, found.low or 0.0, found.high or 0.0) == (0.0, 0.0, 0.0)

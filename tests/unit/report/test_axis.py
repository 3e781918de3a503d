from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsa.report.axis import Axis, of_rounds, plain, ticks
from elsa.report.curves import Curve, span

VALUES = st.floats(-1e12, 1e12, allow_nan=False)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_ticks_hold_all_values_between_and_are_few_and_even(one: float, other: float) -> None:
    low, high = sorted((one, other))
    marked = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1e-12)
    assert marked[0] <= low + slack
    assert marked[-1] >= high - slack
    assert 2 <= len(marked) <= 8
    steps = [after - before for before, after in pairwise(marked)]
    assert min(steps) > 0
    assert max(steps) - min(steps) <= 1e-6 * max(map(abs, marked))


@settings(deadline=None)
@given(st.floats(-1000, 1000), st.floats(0.001, 1000))
def test_labels_of_ticks_tell_them_apart(low: float, span: float) -> None:
    marked = ticks(low, low + span)
    text = plain(marked)
    assert len({text(tick) for tick in marked}) == len(marked)


@settings(deadline=None)
@given(st.integers(1, 10**9))
def test_rounds_begin_at_one_and_end_at_the_last(last: int) -> None:
    axis = of_rounds(last, 0.0, 100.0)
    assert axis.ticks[0] == 1
    assert axis.ticks[-1] == last
    assert all(tick == int(tick) for tick in axis.ticks)
    assert list(axis.ticks) == sorted(set(axis.ticks))
    assert axis.at(1) == (0 if last > 1 else 50)


@pytest.mark.parametrize("value", [0.854, 0.0, 2e9])
def test_a_single_value_has_an_axis_around_it(value: float) -> None:
    ticks_ = span([[Curve(0, "run", [(1.0, value)])]])
    assert ticks_ is not None
    assert 3 <= len(ticks_) <= 8
    assert ticks_[0] < value < ticks_[-1]
    assert len({plain(ticks_)(tick) for tick in ticks_}) == len(ticks_)


def test_values_lie_between_the_ends_in_proportion() -> None:
    axis = Axis((0.0, 1.0, 2.0), 200.0, 0.0, str)
    assert [axis.at(value) for value in (0, 0.5, 2)] == [200, 150, 0]

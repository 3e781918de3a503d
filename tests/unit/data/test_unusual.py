import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elsa.data.unusual import set_apart
from elsa.errors import DataError

LABELS = np.array([0] * 40 + [2] * 7 + [3] * 20)  # class 1 is empty, class 2 the rarest


@given(st.integers(0, 7), st.integers(0, 5), st.integers(1, 9), st.integers(0, 99))
def test_every_row_lies_in_one_place_and_rare_devices_hold_the_rarest_class(
    rare: int, small: int, small_rows: int, seed: int
) -> None:
    found = set_apart(67, LABELS, rare=rare, small=small, small_rows=small_rows, seed=seed)
    everything = np.concatenate([found.ordinary, *found.small, *found.rare])
    assert sorted(everything.tolist()) == list(range(67))
    assert [len(own) for own in found.small] == [small_rows] * small
    assert len(found.rare) == rare
    for own in found.rare:
        assert set(LABELS[own].tolist()) == {2}
    if rare:
        assert 2 not in LABELS[np.concatenate([found.ordinary, *found.small])]


def test_without_unusual_devices_all_rows_stay_in_order_and_need_no_labels() -> None:
    found = set_apart(9, None, rare=0, small=0, small_rows=4, seed=0)
    assert found.ordinary.tolist() == list(range(9))


def test_the_draw_follows_from_the_seed() -> None:
    one, again, other = (
        set_apart(67, LABELS, rare=2, small=2, small_rows=4, seed=seed) for seed in (0, 0, 1)
    )
    assert [own.tolist() for own in one.small] == [own.tolist() for own in again.small]
    assert [own.tolist() for own in one.small] != [own.tolist() for own in other.small]


@pytest.mark.parametrize(
    ("rare", "small", "labels", "message"),
    [
        (8, 0, LABELS, "7 rows for partition.rare_devices = 8"),
        (1, 0, None, "needs labels"),
        (0, 17, LABELS, "partition.small_devices = 17"),
        (1, 15, LABELS, "none of 60 rows"),
    ],
)
def test_rows_that_do_not_suffice_are_refused(
    rare: int, small: int, labels: np.ndarray | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        set_apart(67, labels, rare=rare, small=small, small_rows=4, seed=0)

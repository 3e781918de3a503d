"""Checks on raw columns: what is refused, and how classes are numbered."""

import numpy as np
import pytest

from elsa.data.table import Cells, Columns, Parts, Table, make_table
from elsa.errors import DataError


def parts(text: Cells, label: Cells | None = None, **more: Cells) -> Parts:
    return Parts("rows.csv", Columns(pair="second", group="user"), text, label=label, **more)


def test_labels_are_numbered_by_sorted_name() -> None:
    table = make_table(parts(["a", "b", "c"], ["spam", "ham", "spam"]))
    assert table.label_names == ("ham", "spam")
    assert table.label is not None
    assert table.label.tolist() == [1, 0, 1]
    assert table.label.dtype == np.int64


def test_whole_numbers_sort_by_value_not_as_text() -> None:
    # As text "10" comes before "2". A column of integers with gaps arrives as floats from Parquet.
    assert make_table(parts(list("abc"), [10, 2, 1])).label_names == ("1", "2", "10")
    assert make_table(parts(list("abc"), ["10", "2", "1"])).label_names == ("1", "2", "10")
    assert make_table(parts(list("abc"), [10.0, 2.0, 1.0])).label_names == ("1", "2", "10")


def test_booleans_are_not_turned_into_numbers() -> None:
    assert make_table(parts(["a", "b"], [True, False])).label_names == ("False", "True")


def test_test_rows_take_the_training_classes() -> None:
    # Numbering the test rows on their own would give 'spam' the number 0.
    table = make_table(parts(["a"], ["spam"]), ("ham", "spam"))
    assert table.label is not None
    assert table.label.tolist() == [1]
    assert table.label_names == ("ham", "spam")


@pytest.mark.parametrize("blank", ["", "  \n", None, float("nan")])
def test_blank_text_names_the_count_and_the_first_row(blank: object) -> None:
    with pytest.raises(DataError, match=r"'text' is empty in 2 of 4 rows, first in row 2 "):
        make_table(parts(["a", blank, "b", blank]))


def test_blank_pair_label_and_group_are_refused_too() -> None:
    with pytest.raises(DataError, match=r"'second' is empty in 1 of 2 rows, first in row 1"):
        make_table(parts(["a", "b"], pair=["", "x"]))
    with pytest.raises(DataError, match=r"'label' is empty in 1 of 3 rows, first in row 3"):
        make_table(parts(["a", "b", "c"], ["x", "y", None]))
    with pytest.raises(DataError, match=r"'user' is empty in 1 of 2 rows, first in row 2"):
        make_table(parts(["a", "b"], group=["x", float("nan")]))


def test_text_that_is_no_string_is_refused_with_its_row() -> None:
    with pytest.raises(DataError, match=r"'text' holds 7 \(int\) in row 2"):
        make_table(parts(["a", 7]))


def test_labels_that_are_measurements_are_refused() -> None:
    with pytest.raises(DataError, match=r"'label' holds 0\.5 \(float\) in row 1"):
        make_table(parts(["a", "b"], [0.5, 1.5]))


def test_no_rows_and_one_class_are_refused() -> None:
    with pytest.raises(DataError, match=r"rows\.csv has no rows"):
        make_table(parts([], []))
    with pytest.raises(DataError, match=r"single class 'x' in all 2 rows"):
        make_table(parts(["a", "b"], ["x", "x"]))


def test_a_test_label_that_training_lacks_is_named_with_its_first_row() -> None:
    with pytest.raises(DataError, match=r"1 labels that are not known: 'egg' \(row 2\)"):
        make_table(parts(["a", "b", "c"], ["ham", "egg", "egg"]), ("ham", "spam"))


def test_take_keeps_rows_together_and_the_classes() -> None:
    whole = make_table(
        parts(["a", "b", "c"], ["x", "y", "z"], pair=["A", "B", "C"], group=[1, 2, 3])
    )
    some = whole.take([2, 0])
    assert isinstance(some, Table)
    assert (some.text, some.pair, some.group) == (("c", "a"), ("C", "A"), ("3", "1"))
    assert some.label is not None
    assert some.label.tolist() == [2, 0]
    assert some.label_names == ("x", "y", "z")
    assert len(some) == 2

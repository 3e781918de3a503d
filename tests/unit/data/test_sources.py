"""Training and test rows: disjoint, complete, in proportion, and decided by the seed alone."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from elsa.data.sources import _draw, _draw_groups, load_split, load_table
from elsa.data.table import Columns, Table
from elsa.errors import DataError


def rows_file(folder: Path, counts: dict[str, int], name: str = "rows.jsonl") -> str:
    path = folder / name
    labels = [label for label, count in counts.items() for _ in range(count)]
    lines = [json.dumps({"text": f"{name} {n}", "label": x}) for n, x in enumerate(labels)]
    path.write_text("\n".join(lines))
    return str(path)


def classes(table: Table) -> Counter[str]:
    assert table.label is not None
    return Counter(table.label_names[number] for number in table.label)


def test_split_is_a_partition_in_proportion(tmp_path: Path) -> None:
    path = rows_file(tmp_path, {"a": 100, "b": 50, "c": 10})
    train, test = load_split(path, test_fraction=0.2)
    assert classes(test) == {"a": 20, "b": 10, "c": 2}
    assert sorted(train.text + test.text) == sorted(load_table(path).text)


def test_a_class_of_one_row_stays_in_training(tmp_path: Path) -> None:
    path = rows_file(tmp_path, {"a": 3, "b": 1})
    train, test = load_split(path, test_fraction=0.5)
    assert classes(train)["b"] == 1
    assert classes(test) == {"a": 2}


def test_the_seed_decides_the_split_and_nothing_else_does(tmp_path: Path) -> None:
    path = rows_file(tmp_path, {"a": 50, "b": 50})
    first = load_split(path, seed=1, limit=40)
    np.random.seed(5)  # noqa: NPY002 - the global state must not matter
    again = load_split(path, seed=1, limit=40)
    other = load_split(path, seed=2, limit=40)
    assert [part.text for part in first] == [part.text for part in again]
    assert first[1].text != other[1].text


def test_limit_counts_training_and_test_rows_together(tmp_path: Path) -> None:
    path = rows_file(tmp_path, {"a": 100, "b": 100})
    train, test = load_split(path, limit=50, test_fraction=0.2)
    assert (len(train), len(test)) == (40, 10)
    assert classes(train) == {"a": 20, "b": 20}
    assert len(load_split(path, limit=1000)[0]) == 160


def test_limit_keeps_classes_it_leaves_out(tmp_path: Path) -> None:
    # The head of the model must not change its width with the limit.
    train, _ = load_split(rows_file(tmp_path, {"a": 100, "b": 1}), limit=10)
    assert train.label_names == ("a", "b")


def test_a_named_test_file_is_used_whole(tmp_path: Path) -> None:
    path = rows_file(tmp_path, {"a": 30, "b": 30})
    test_path = rows_file(tmp_path, {"b": 5}, "test.jsonl")
    train, test = load_split(path, test=test_path, limit=20)
    assert len(train) == 20
    assert classes(test) == {"b": 5}
    unknown = rows_file(tmp_path, {"c": 1}, "unknown.jsonl")
    with pytest.raises(DataError, match=r"are not known: 'c' \(row 1\); known are a, b"):
        load_split(path, test=unknown)
    with pytest.raises(DataError, match=r"data\.test = 'absent\.csv' is no file"):
        load_split(path, test="absent.csv")


def test_an_official_test_part_is_kept_and_thinned_alike(tmp_path: Path) -> None:
    def part(rows: int) -> Dataset:
        texts = [f"{rows} {n}" for n in range(rows)]
        return Dataset.from_dict({"text": texts, "label": [n % 2 for n in range(rows)]})

    DatasetDict(train=part(60), test=part(20)).save_to_disk(str(tmp_path / "rows"))
    path = str(tmp_path / "rows")
    assert [len(table) for table in load_split(path)] == [60, 20]
    assert [len(table) for table in load_split(path, limit=40)] == [30, 10]
    assert [len(table) for table in load_split(path, limit=2)] == [1, 1]


def test_rows_without_labels_split_too(tmp_path: Path) -> None:
    path = rows_file(tmp_path, {"a": 10})
    train, test = load_split(path, Columns(label=""))
    assert (len(train), len(test)) == (8, 2)
    assert train.label is None
    assert train.label_names == ()


def test_nothing_left_on_one_side_is_refused(tmp_path: Path) -> None:
    path = rows_file(tmp_path, {"a": 1, "b": 1})
    with pytest.raises(DataError, match=r"data\.test_fraction = 0\.2 of 2 rows leaves nothing"):
        load_split(path)
    path = rows_file(tmp_path, {"a": 9, "b": 9})
    with pytest.raises(DataError, match=r"data\.test_fraction = 1\.0 of 18 rows leaves nothing"):
        load_split(path, test_fraction=1.0)


def test_a_wrong_path_lists_the_assets_and_the_nearest() -> None:
    with pytest.raises(DataError, match=r"data\.path = 'trek' is neither") as caught:
        load_split("trek")
    assert "trec, trec-fine, sms" in str(caught.value)
    assert "Did you mean 'trec'?" in str(caught.value)
    with pytest.raises(DataError, match=r"'minilm' is a model; give it as model\.path"):
        load_split("minilm")


LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=60)


@given(LABELS, st.data())
def test_draw_takes_what_is_asked_within_one_row_of_proportion(
    values: list[int], data: st.DataObject
) -> None:
    label = np.array(values)
    take = data.draw(st.integers(1, len(values)))
    rows = _draw(label, len(values), take, np.random.default_rng(0))
    assert len(set(rows.tolist())) == len(rows) == take
    quota = np.bincount(label) * take / len(values)
    assert np.all(np.abs(np.bincount(label[rows], minlength=len(quota)) - quota) < 1)


@given(LABELS, st.data())
def test_draw_leaves_a_row_of_each_class(values: list[int], data: st.DataObject) -> None:
    label = np.array(values)
    take = data.draw(st.integers(1, len(values)))
    rows = _draw(label, len(values), take, np.random.default_rng(0), leave=1)
    left = np.delete(label, rows)
    assert set(left.tolist()) == set(values)


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60), st.data())
def test_groups_are_drawn_whole_and_no_more_than_needed(
    groups: list[str], data: st.DataObject
) -> None:
    take = data.draw(st.integers(1, len(groups)))
    rows = set(_draw_groups(tuple(groups), take, np.random.default_rng(0)).tolist())
    taken = {groups[row] for row in rows}
    assert rows == {row for row, name in enumerate(groups) if name in taken}
    assert len(rows) >= take
    assert len(rows) - max(Counter(groups)[name] for name in taken) < take

"""Reading a person's own files, and what is said when they cannot be read."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from elsa.data.files import read_file
from elsa.data.table import TEXT_AND_LABEL, Columns
from elsa.errors import DataError

ROWS = [
    {"text": 'Has, "quotes"\nand a break', "label": "b", "user": "u1"},
    {"text": "Zürich 漢字", "label": "a", "user": "u2"},
]
ALL = Columns("text", "", "label", "user")


def write_csv(folder: Path) -> Path:
    path = folder / "rows.csv"
    pandas.DataFrame(ROWS).to_csv(path, index=False, encoding="utf-8-sig")
    return path


def write_jsonl(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in ROWS) + "\n", "utf-8")
    return path


def write_parquet(folder: Path) -> Path:
    path = folder / "rows.parquet"
    pandas.DataFrame(ROWS).to_parquet(path)
    return path


def write_directory(folder: Path) -> Path:
    Dataset.from_list(ROWS).save_to_disk(str(folder / "rows"))
    return folder / "rows"


@pytest.mark.parametrize("write", [write_csv, write_jsonl, write_parquet, write_directory])
def test_every_format_gives_the_same_columns(
    write: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, test = read_file(write(tmp_path), ALL)
    assert test is None
    assert list(parts.text) == [row["text"] for row in ROWS]
    assert parts.label is not None
    assert parts.group is not None
    assert (list(parts.label), list(parts.group)) == (["b", "a"], ["u1", "u2"])
    assert parts.pair is None


@pytest.mark.parametrize("write", [write_csv, write_jsonl, write_parquet, write_directory])
def test_a_missing_column_lists_the_columns_and_the_nearest(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = write(tmp_path)
    with pytest.raises(DataError, match=r"no column 'txt' \(data\.text\)") as caught:
        read_file(path, Columns(text="txt"))
    assert "it has 'text', 'label', 'user'; did you mean 'text'?" in str(caught.value)
    with pytest.raises(DataError, match=r"'usr' \(data\.group\)"):
        read_file(path, Columns(group="usr"))


def test_class_names_come_from_the_directory_and_its_test_split_too(tmp_path: Path) -> None:
    # Without the names, the classes of a stored dataset would be bare numbers in every report.
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    parts = {
        "train": Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features),
        "test": Dataset.from_dict({"text": ["c"], "label": [-1]}, features),
    }
    DatasetDict(parts).save_to_disk(str(tmp_path / "rows"))
    train, test = read_file(tmp_path / "rows", TEXT_AND_LABEL)
    assert train.label is not None
    assert list(train.label) == ["pos", "neg"]
    assert test is not None
    assert test.label is not None
    assert list(test.label) == [None]
    assert test.where.endswith("rows (test)")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", r"a\.csv is empty: its first line must name the columns"),
        ("a.csv", b"text,label\na,b,c\n", r"line 2: 3 cells instead of 2"),
        ("a.csv", b'text,label\nok,1\n"open,1\n', r"line 3: not valid CSV: unexpected end of data"),
        ("a.csv", b"text,label\nZ\xfcrich,1\n", r"a\.csv is not UTF-8 \(byte 0xfc"),
        ("a.csv", b"text,text\na,b\n", r"names a column twice: text, text"),
        ("a.jsonl", b"", r"a\.jsonl has no rows"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"line 2: not valid JSON: Expecting value"),
        ("a.jsonl", b'{"text": "a"}\n\n["a"]\n', r"line 3: list instead of an object"),
        ("a.jsonl", b'{"text": "\xfc"}\n', r"a\.jsonl is not UTF-8 \(byte 0xfc"),
        ("a.parquet", b"PAR1 not really", r"a\.parquet cannot be read as Parquet"),
        ("a.xlsx", b"", r"ends in '\.xlsx'; allowed are \.csv, \.jsonl, \.parquet"),
    ],
)
def test_what_cannot_be_read_says_where(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_file(path, TEXT_AND_LABEL)


def test_other_directories_and_missing_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a directory written by `datasets`"):
        read_file(tmp_path, TEXT_AND_LABEL)
    with pytest.raises(DataError, match="no such file or directory"):
        read_file(tmp_path / "absent.csv", TEXT_AND_LABEL)
    DatasetDict(dev=Dataset.from_list(ROWS)).save_to_disk(str(tmp_path / "rows"))
    with pytest.raises(DataError, match="has the splits dev, but none named 'train'"):
        read_file(tmp_path / "rows", TEXT_AND_LABEL)


def test_a_key_absent_in_some_lines_is_a_blank_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"label": 2}\n')
    parts, _ = read_file(path, TEXT_AND_LABEL)
    assert list(parts.text) == ["a", None]

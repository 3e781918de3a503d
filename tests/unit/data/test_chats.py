"""Columns of conversations: what is taken, and what is refused with a place and a way out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elsa.data.chats import Turn, read_chats
from elsa.data.files import read_file
from elsa.data.table import Columns, make_table
from elsa.errors import DataError

GOOD = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
CHAT = (Turn("user", "Who?"), Turn("assistant", "Me."))


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_prompts_with_answers_and_conversations_are_the_same_rows(tmp_path: Path) -> None:
    asked = jsonl(tmp_path / "a.jsonl", [{"q": "Who?", "a": "Me."}, {"q": "Why?", "a": "So."}])
    said = jsonl(
        tmp_path / "m.jsonl",
        [{"m": GOOD}, {"m": [dict(GOOD[0], content="Why?"), dict(GOOD[1], content="So.")]}],
    )
    pairs = make_table(read_file(asked, Columns("q", label="", answer="a"))[0])
    chats = make_table(read_file(said, Columns(label="", messages="m"))[0])
    assert pairs.chat is not None
    assert pairs.chat[0] == CHAT
    assert pairs.chat == chats.chat
    assert pairs.text == chats.text == ("Who?\nMe.", "Why?\nSo.")
    assert pairs.take([1]).chat == (pairs.chat[1],)


def test_parquet_gives_arrays_of_turns() -> None:
    assert read_chats([np.array(GOOD, dtype=object)], "x", "m") == (CHAT,)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("Who? Me.", r"row 2 holds str, and a conversation is a list.*CSV cannot"),
        ([], r"row 2 is empty; it must end with a turn of role 'assistant'"),
        (GOOD[:1], r"row 2 ends with 'user'; it must end with"),
        ([*GOOD, {"role": "assistant"}], r"row 2: turn 3 needs 'role' and 'content'"),
        ([{"role": "user", "content": " "}, GOOD[1]], r"row 2: turn 1 needs"),
        (["Who?", "Me."], r"row 2: turn 1 needs"),
    ],
)
def test_what_is_no_conversation_is_refused_with_its_row(cell: object, reason: str) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl: column 'm' in " + reason):
        read_chats([GOOD, cell], "rows.jsonl", "m")


def test_an_empty_answer_is_refused_like_any_empty_text(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"q": "Who?", "a": "Me."}, {"q": "Why?", "a": " "}])
    with pytest.raises(DataError, match=r"column 'a' is empty in 1 of 2 rows, first in row 2"):
        make_table(read_file(path, Columns("q", label="", answer="a"))[0])
    with pytest.raises(DataError, match=r"no column 'b' \(data.answer\); it has 'q', 'a'"):
        read_file(path, Columns("q", label="", answer="b"))

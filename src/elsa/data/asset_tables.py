"""Reading the text assets, each in its own format."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from elsa.data.table import TEXT_AND_LABEL, Columns, Parts


@dataclass(frozen=True)
class AssetTable:
    """What an asset's files hold.

    Attributes:
        train: the rows, or the official training part.
        test: the official test part, or None.
        split_by_group: whether rows of one group may not be on both sides of a split.
    """

    train: Parts
    test: Parts | None = None
    split_by_group: bool = False


def read_asset(name: str, files: list[Path]) -> AssetTable:
    """Read the asset of this name from its files, given in the catalogue's order."""
    return _READERS[name](name, files)


def _trec(name: str, files: list[Path]) -> AssetTable:
    """Lines `COARSE:fine question`, latin-1; the file repeats most lines several times."""
    lines = dict.fromkeys(files[0].read_text("latin-1").split("\n"))
    pairs = [line.strip().split(" ", 1) for line in lines if line.strip()]
    labels = [label if name == "trec-fine" else label.partition(":")[0] for label, _ in pairs]
    return AssetTable(Parts(name, TEXT_AND_LABEL, [text for _, text in pairs], label=labels))


def _sms(name: str, files: list[Path]) -> AssetTable:
    """CSV `,spam,text` with spam 0 or 1; some messages are there several times."""
    with files[0].open(encoding="utf-8", newline="") as source:
        rows = {row["text"]: row["spam"] for row in csv.DictReader(source)}
    labels = ["spam" if spam == "1" else "ham" for spam in rows.values()]
    return AssetTable(Parts(name, TEXT_AND_LABEL, list(rows), label=labels))


def _orange(name: str, files: list[Path]) -> AssetTable:
    """Lines `label TAB text` after three header lines; a test part of its own."""

    def part(where: str, path: Path) -> Parts:
        lines = path.read_text("utf-8").split("\n")[3:]
        cells = [line.split("\t") for line in lines if line.strip()]
        texts, labels = [text for _, text in cells], [label for label, _ in cells]
        return Parts(where, TEXT_AND_LABEL, texts, label=labels)

    return AssetTable(part(f"{name} (train)", files[0]), part(f"{name} (test)", files[1]))


def _json_rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]


def _privacyqa(name: str, files: list[Path]) -> AssetTable:
    """A question and a sentence of a privacy policy: does the sentence answer it?"""
    rows = _json_rows(files[0])
    questions = [row["question"] for row in rows]
    contexts, labels = [row["context"] for row in rows], [row["answer"] for row in rows]
    names = Columns("question", "context", "answer", "question")
    return AssetTable(
        Parts(name, names, questions, contexts, labels, questions), split_by_group=True
    )


def _boolq(name: str, files: list[Path]) -> AssetTable:
    """A question and a passage; rows without a label are left out."""
    rows = [row for row in _json_rows(files[0]) if "label" in row]
    questions, passages = [row["question"] for row in rows], [row["passage"] for row in rows]
    names = Columns("question", "passage")
    labels = [row["label"] for row in rows]
    return AssetTable(Parts(name, names, questions, passages, labels))


def _nq_open(name: str, files: list[Path]) -> AssetTable:
    """A question and the first of its answers."""
    questions, answers = [], []
    for row in _json_rows(files[0]):
        known = row["answer"]
        assert isinstance(known, list)
        questions.append(row["question"])
        answers.append(known[0])
    names = Columns("question", label="", answer="answer")
    return AssetTable(Parts(name, names, questions, answer=answers))


_READERS: dict[str, Callable[[str, list[Path]], AssetTable]] = {
    "trec": _trec,
    "trec-fine": _trec,
    "sms": _sms,
    "r8": _orange,
    "r52": _orange,
    "20news": _orange,
    "privacyqa": _privacyqa,
    "boolq": _boolq,
    "nq-open": _nq_open,
}

"""Rows of text with their labels and groups, checked once when they are read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from elsa.data.chats import Chat, answered, as_text, read_chats
from elsa.errors import DataError

Cell = TypeVar("Cell")
Cells = Sequence[object]
"""A column as it was read: strings, numbers, None."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns that play a part; an empty name means that there is none.

    `classes` are what the label column may hold, in order; empty takes what it holds, sorted.
    `keys` is what the keys that name the columns begin with, for messages.
    """

    text: str = "text"
    pair: str = ""
    label: str = "label"
    group: str = ""
    classes: tuple[str, ...] = ()
    answer: str = ""
    messages: str = ""
    keys: str = "data."


TEXT_AND_LABEL = Columns()
"""Columns named `text` and `label`."""


@dataclass(frozen=True)
class Parts:
    """The raw columns of one source, one list each, all of the same length.

    Attributes:
        where: how messages name the source.
        names: the column names, for messages.
        text: texts; prompts, where there are answers; empty where there are conversations.
    """

    where: str
    names: Columns
    text: Cells
    pair: Cells | None = None
    label: Cells | None = None
    group: Cells | None = None
    answer: Cells | None = None
    messages: Cells | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of text.

    Attributes:
        text: what the model reads, R strings, none of them blank.
        pair: the second text of each row, R strings, or None.
        label: [R] int64, indices into `label_names`, or None.
        label_names: the classes, sorted; whole numbers by value, anything else as text.
        group: to whom or what a row belongs, R strings, or None.
        chat: the rows as conversations, or None; `text` then holds the same as plain text.
    """

    text: tuple[str, ...]
    pair: tuple[str, ...] | None = None
    label: NDArray[np.int64] | None = None
    label_names: tuple[str, ...] = ()
    group: tuple[str, ...] | None = None
    chat: tuple[Chat, ...] | None = None

    def __len__(self) -> int:
        return len(self.text)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Self:
        """The table of these rows, in this order; the classes stay."""

        def pick(column: tuple[Cell, ...] | None) -> tuple[Cell, ...] | None:
            return None if column is None else tuple(column[row] for row in rows)

        return type(self)(
            tuple(self.text[row] for row in rows),
            pick(self.pair),
            None if self.label is None else self.label[np.asarray(rows, dtype=np.int64)],
            self.label_names,
            pick(self.group),
            pick(self.chat),
        )


def make_table(parts: Parts, label_names: tuple[str, ...] | None = None) -> Table:
    """Check the raw columns and number the labels.

    Args:
        parts: what was read.
        label_names: the classes, in order: as given, or of the training rows when these are test
            rows; None finds them.

    Raises:
        DataError: no rows, blank or non-text cells, labels that are neither text nor whole
            numbers, a single class, or a label that `label_names` does not know.
    """
    if not (parts.text or parts.messages):
        raise DataError(f"{parts.where} has no rows")
    names: tuple[str, ...] = ()
    label = None
    if parts.label is not None:
        values = _labels(parts.label, parts.where, parts.names.label)
        names = label_names or _sorted_names(set(values))
        if label_names is None and len(names) == 1:
            raise DataError(
                f"{parts.where}: column '{parts.names.label}' holds the single class "
                f"'{names[0]}' in all {len(values)} rows; a classifier needs at least two"
            )
        label = _numbered(values, names, parts)
    chat = _chats(parts)
    return Table(
        tuple(as_text(each) for each in chat)
        if chat
        else _texts(parts.text, parts.where, parts.names.text),
        None if parts.pair is None else _texts(parts.pair, parts.where, parts.names.pair),
        label,
        names,
        None if parts.group is None else _labels(parts.group, parts.where, parts.names.group),
        chat,
    )


def _chats(parts: Parts) -> tuple[Chat, ...] | None:
    if parts.messages is not None:
        return read_chats(parts.messages, parts.where, parts.names.messages)
    if parts.answer is None:
        return None
    return answered(
        _texts(parts.text, parts.where, parts.names.text),
        _texts(parts.answer, parts.where, parts.names.answer),
    )


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _refuse_blanks(blank: list[int], where: str, column: str, rows: int) -> None:
    if blank:
        raise DataError(
            f"{where}: column '{column}' is empty in {len(blank)} of {rows} rows, first in row "
            f"{blank[0]} (the first row of data is 1): fill or remove these rows"
        )


def _texts(cells: Cells, where: str, column: str) -> tuple[str, ...]:
    blank, kept = [], []
    for row, cell in enumerate(cells, 1):
        if isinstance(cell, str):
            kept.append(cell)
            if not cell.strip():
                blank.append(row)
        elif _missing(cell):
            blank.append(row)
        else:
            raise DataError(
                f"{where}: column '{column}' holds {cell!r} ({type(cell).__name__}) in row {row}; "
                "a text column holds strings only"
            )
    _refuse_blanks(blank, where, column, len(cells))
    return tuple(kept)


def _labels(cells: Cells, where: str, column: str) -> tuple[str, ...]:
    blank, kept = [], []
    for row, cell in enumerate(cells, 1):
        if _missing(cell) or (isinstance(cell, str) and not cell.strip()):
            blank.append(row)
        elif isinstance(cell, str):
            kept.append(cell.strip())
        elif isinstance(cell, int) or (isinstance(cell, float) and cell.is_integer()):
            kept.append(str(cell if isinstance(cell, bool) else int(cell)))
        else:
            raise DataError(
                f"{where}: column '{column}' holds {cell!r} ({type(cell).__name__}) in row {row}; "
                "allowed are strings and whole numbers"
            )
    _refuse_blanks(blank, where, column, len(cells))
    return tuple(kept)


def _sorted_names(values: set[str]) -> tuple[str, ...]:
    try:
        return tuple(sorted(values, key=lambda value: (int(value), value)))
    except ValueError:
        return tuple(sorted(values))


def _numbered(values: tuple[str, ...], names: tuple[str, ...], parts: Parts) -> NDArray[np.int64]:
    index = {name: number for number, name in enumerate(names)}
    unknown = {value: row for row, value in reversed(list(enumerate(values, 1)))}
    unknown = {value: row for value, row in unknown.items() if value not in index}
    if unknown:
        shown = ", ".join(f"'{value}' (row {row})" for value, row in sorted(unknown.items())[:5])
        raise DataError(
            f"{parts.where}: column '{parts.names.label}' holds {len(unknown)} labels that are "
            f"not known: {shown}; known are {', '.join(names[:20])}"
        )
    return np.fromiter((index[value] for value in values), np.int64, len(values))

"""A timeline in the Chrome trace format, which chrome://tracing and ui.perfetto.dev show.

Every row is a thread of a group, which is a process there. Times are rounded to nanoseconds, each
end for itself, so what does not overlap in seconds does not overlap in the file.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from elsa.errors import RunError
from elsa.record.atomic import partial_path, publish


class TimelineFile:
    """A timeline being written; the file is there once it is closed."""

    def __init__(self, path: Path, groups: Mapping[str, Sequence[str]]) -> None:
        """Set up rows by their group, both in the order in which they are shown.

        Raises:
            RunError: the file cannot be written.
        """
        self._path = path
        self._partial = partial_path(path)
        try:
            self._file = self._partial.open("w", encoding="utf-8")
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}") from error
        self._places: dict[str, tuple[int, int]] = {}
        self._file.write('{"displayTimeUnit": "ms", "traceEvents": [')
        self._first = True
        for group, rows in enumerate(groups, 1):
            self._name("process", rows, group, 0)
            for number, row in enumerate(groups[rows], 1):
                self._places[row] = group, number
                self._name("thread", row, group, number)

    def span(self, row: str, what: str, start: float, end: float) -> None:
        """Write that a row did something from `start` to `end`, in seconds."""
        begins, ends = round(start * 1e9), round(end * 1e9)
        if ends > begins:
            times = {"ts": begins / 1e3, "dur": (ends - begins) / 1e3}
            self._event({"ph": "X", "name": what, **self._at(row), **times})

    def mark(self, row: str, what: str, at: float) -> None:
        """Write that something happened in a row at a moment, in seconds."""
        self._event(
            {"ph": "i", "s": "t", "name": what, **self._at(row), "ts": round(at * 1e9) / 1e3}
        )

    def close(self) -> None:
        """Put the file in its place.

        Raises:
            RunError: it cannot be written.
        """
        try:
            self._file.write("\n]}\n")
            self._file.close()
            publish(self._partial, self._path)
        except OSError as error:
            raise RunError(f"{self._path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _at(self, row: str) -> dict[str, int]:
        group, number = self._places[row]
        return {"pid": group, "tid": number}

    def _name(self, kind: str, name: str, group: int, number: int) -> None:
        at = {"ph": "M", "pid": group, "tid": number}
        self._event({"name": f"{kind}_name", **at, "args": {"name": name}})
        order = {"sort_index": number or group}
        self._event({"name": f"{kind}_sort_index", **at, "args": order})

    def _event(self, event: Mapping[str, Any]) -> None:
        self._file.write(("\n" if self._first else ",\n") + json.dumps(event))
        self._first = False

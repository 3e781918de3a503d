"""events.jsonl: an event a line, flushed as it happens, with the wall-clock time."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from elsa.errors import RunError
from elsa.record.events import EVENT, Event
from elsa.record.lines import LineFile, read_lines


@dataclass(frozen=True)
class Entry:
    """An event and when it was logged.

    Attributes:
        time: seconds since 1970, wall clock.
        event: what happened.
    """

    time: float
    event: Event


class EventLog:
    """The events of a run, open for appending."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Open the log, making it if it is not there; raises RunError."""
        self._file = LineFile(path)
        self._clock = clock

    def append(self, event: Event) -> None:
        """Add an event; raises RunError if it cannot be written."""
        fields = json.loads(EVENT.dump_json(event))
        line = json.dumps({"time": self._clock(), "kind": fields.pop("kind")} | fields)
        self._file.append(line.encode())

    def offset(self) -> int:
        """Return the length in bytes, all of it flushed to the disk."""
        return self._file.offset()

    def cut(self, offset: int) -> None:
        """Remove the events after `offset`."""
        self._file.cut(offset)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_events(path: Path) -> list[Entry]:
    """Return the events of a log; a half-written last line is left out.

    Raises:
        RunError: a whole line is no event.
    """
    entries = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            entries.append(parse_entry(line))
        except ValueError as error:
            raise RunError(f"{path}, line {number}: is no event: {line[:80]!r}") from error
    return entries


def parse_entry(line: bytes) -> Entry:
    """Return what a line of a log says; raises ValueError if it is no event."""
    try:
        fields = json.loads(line)
        return Entry(float(fields.pop("time")), EVENT.validate_python(fields))
    except (KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"no event: {line[:80]!r}") from error

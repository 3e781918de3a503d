"""Files that only grow, a line at a time; a line counts once its line feed is written."""

import os
from pathlib import Path

from elsa.errors import RunError


class LineFile:
    """A growing file of lines, open for appending.

    Opening cuts off a last line that a killed process left half-written. One process at a time:
    the run directory's lock sees to that.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`, making it if it is not there; raises RunError."""
        self.path = path
        try:
            self._file = path.open("ab", buffering=0)
            self._file.truncate(_whole(path.read_bytes()))
        except OSError as error:
            raise RunError(f"{path}: cannot be opened: {error.strerror}") from error

    def append(self, line: bytes) -> None:
        """Add a line, given without its line feed.

        Raises:
            RunError: it cannot be written, for instance because the disk is full; the file is
                then as it was before.
        """
        start = os.fstat(self._file.fileno()).st_size
        data = line + b"\n"
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            self._file.truncate(start)
            raise RunError(f"{self.path}: cannot be written: {error.strerror}") from error

    def offset(self) -> int:
        """Return the length in bytes, all of it flushed to the disk; raises RunError."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror}") from error
        return os.fstat(self._file.fileno()).st_size

    def cut(self, offset: int) -> None:
        """Remove everything after `offset`, and a line that it would cut in two.

        A file that is shorter, because something else damaged it, keeps what it has.
        """
        self._file.truncate(_whole(self.path.read_bytes()[:offset]))

    def close(self) -> None:
        """Close the file; nothing can be appended any more."""
        self._file.close()


def read_lines(path: Path) -> list[bytes]:
    """Return the whole lines of a file without their line feeds; none if it is not there.

    Raises:
        RunError: the file is there and cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    return data[: _whole(data)].split(b"\n")[:-1]


def _whole(data: bytes) -> int:
    return data.rfind(b"\n") + 1

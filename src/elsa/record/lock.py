"""A run directory is written by one process at a time."""

import fcntl
import os
from pathlib import Path

from elsa.errors import RunError


class Lock:
    """An exclusive lock that the system drops with the process, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock of a folder.

        Raises:
            RunError: another process holds it, or the folder cannot be written.
        """
        path = folder / "lock"
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise RunError(f"{folder}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise RunError(
                f"{folder}: in use by process {holder}; wait until it ends, or end it first"
            ) from None
        except OSError as error:
            os.close(self._descriptor)
            raise RunError(f"{path}: cannot be locked: {error.strerror}") from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process have it."""
        os.close(self._descriptor)

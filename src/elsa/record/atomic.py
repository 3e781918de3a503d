"""Files and folders that are there whole or not at all, whatever moment the process is killed at.

Everything is written beside its place under a hidden name ending in ".partial", flushed to the
disk, and renamed; the rename is flushed too. Leftovers of a killed process are never read.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elsa.errors import RunError


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file at `path` by one holding `data`.

    Raises:
        RunError: it cannot be written, for instance because the disk is full; what was there
            before is still there.
    """
    partial = partial_path(path)
    try:
        partial.write_bytes(data)
        publish(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error


def partial_path(path: Path) -> Path:
    """Return the hidden path beside `path` under which it is written first."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def publish(partial: Path, path: Path) -> None:
    """Flush a written file to the disk, then rename it to its place; raises OSError."""
    sync(partial)
    partial.replace(path)
    sync(path.parent)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; when the block ends well it becomes the folder `path`.

    A reader sees the old folder, none for a moment, then the new one; never a part of one.

    Raises:
        RunError: the new folder cannot take its place.
    """
    partial = partial_path(path)
    old = partial_path(path.with_name(f"{path.name}.old"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for each in [*partial.rglob("*"), partial]:
            if each.is_file():  # some libraries write for the owner alone; the umask decides here
                each.chmod(partial.stat().st_mode & 0o666)
            sync(each)
        if path.exists():
            path.replace(old)
        partial.replace(path)
        sync(path.parent)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written directly in `folder`."""
    for leftover in folder.glob(".*.partial"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or the entries of a folder to the disk; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Directories that are whole or not there at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """A directory to write into, that takes the place of `target` when the block ends well.

    What stood at `target` before is replaced only then; if the block raises, nothing is left.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    old = made.with_name(f"{made.name}.old")
    made.mkdir()
    try:
        yield made
        for path in made.iterdir():
            # safetensors makes files for their owner alone; here the umask decides, as elsewhere.
            path.chmod(made.stat().st_mode & 0o666)
        if target.exists():
            os.replace(target, old)  # noqa: PTH105 - the same on every system
        os.replace(made, target)  # noqa: PTH105
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)

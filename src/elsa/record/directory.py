"""The folder of a run.

manifest.json   what it was started with        metrics.csv    a row a round
events.jsonl    what happened                   tensorboard/   the same for TensorBoard
checkpoint/     the last two states             summary.json   the result
adapter/        the PEFT adapter                lock           held by the process that writes
clusters/       how far apart devices are at each clustering, and points in the plane, as .npz
plan.json       what each device was reckoned to hold and do, with its last split
report.html     all of this to be looked at
transcript/     what edge servers saw, if asked for by [audit]
"""

import io
import json
import math
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from elsa.errors import RunError
from elsa.record.atomic import sweep, write_atomically
from elsa.record.lock import Lock
from elsa.record.log import EventLog
from elsa.record.manifest import Manifest, read_manifest
from elsa.record.metrics import MetricsLog


class RunDirectory:
    """A run directory held by this process for writing.

    Attributes:
        path: the folder.
        manifest: what the run was started with.
        events: its events.jsonl.
        metrics: its metrics.csv and TensorBoard file.
    """

    def __init__(self, path: Path, manifest: Manifest, lock: Lock) -> None:
        """Take over a locked folder; use `create`, `create_numbered` or `open` instead."""
        self.path = path
        self.manifest = manifest
        self._lock = lock
        try:
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.checkpoints}: cannot be made: {error.strerror}") from error
        sweep(path)
        sweep(self.checkpoints)
        self.events = EventLog(path / "events.jsonl")
        self.metrics = MetricsLog(path / "metrics.csv", path / "tensorboard")

    @classmethod
    def create(cls, path: Path, manifest: Manifest) -> Self:
        """Begin a run in a folder that is empty or not there.

        Raises:
            RunError: the folder holds something, is in use, or cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            _refuse_content(path)
        except OSError as error:
            raise RunError(f"{path}: cannot be made: {error.strerror}") from error
        return cls._begin(path, manifest)

    @classmethod
    def create_numbered(cls, parent: Path, name: str, manifest: Manifest) -> Self:
        """Begin a run in parent/name, or name-2, name-3, ... if that is taken.

        Raises:
            RunError: the folder cannot be written.
        """
        for number in count(1):
            path = parent / (name if number == 1 else f"{name}-{number}")
            try:
                parent.mkdir(parents=True, exist_ok=True)
                path.mkdir()
            except FileExistsError as error:
                if not parent.is_dir():
                    raise RunError(f"{parent}: is no folder") from error
                continue
            except OSError as error:
                raise RunError(f"{path}: cannot be made: {error.strerror}") from error
            break
        return cls._begin(path, manifest)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run that was begun before, to go on with it.

        Raises:
            RunError: it is no run, one of another version, or in use by another process.
        """
        read_manifest(path)
        lock = Lock(path)
        try:
            return cls(path, read_manifest(path), lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _begin(cls, path: Path, manifest: Manifest) -> Self:
        lock = Lock(path)
        try:
            _refuse_content(path)
            write_atomically(path / "manifest.json", manifest.to_json())
            return cls(path, read_manifest(path), lock)
        except BaseException:
            lock.release()
            raise

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoint"

    @property
    def adapter(self) -> Path:
        """The folder of the PEFT adapter; fill it through `replaced_folder`."""
        return self.path / "adapter"

    def offsets(self) -> dict[str, int]:
        """Return how far the logs reach, in bytes flushed to the disk; a checkpoint keeps it."""
        return {"events": self.events.offset(), "metrics": self.metrics.offset()}

    def rewind(self, offsets: Mapping[str, int] | None = None) -> None:
        """Cut the logs back to a checkpoint's offsets; None cuts them to the beginning.

        Afterwards the finished logs are what an uninterrupted run writes, except for times.
        """
        offsets = offsets or {}
        self.events.cut(offsets.get("events", 0))
        self.metrics.cut(offsets.get("metrics", 0))

    def write_arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        """Write arrays to the file `name`, an .npz below the folder; equal ones, equal bytes.

        Raises:
            RunError: it cannot be written.
        """
        import numpy as np  # late: reading a run must not wait for it

        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        path = self.path / name
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"{path.parent}: cannot be made: {error.strerror}") from error
        write_atomically(path, content.getvalue())

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Write plan.json, as `write_summary` does."""
        self._write_table("plan.json", plan)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json; a number that is not finite becomes null.

        Raises:
            RunError: it cannot be written.
        """
        self._write_table("summary.json", summary)

    def _write_table(self, name: str, table: Mapping[str, Any]) -> None:
        text = json.dumps(_finite(table), indent=2, allow_nan=False)
        write_atomically(self.path / name, text.encode() + b"\n")

    def close(self) -> None:
        """Close the logs and let another process have the folder."""
        self.events.close()
        self.metrics.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_summary(run: Path) -> dict[str, Any] | None:
    """Return the summary of the run directory `run`; None if the run has not ended.

    Raises:
        RunError: the file is damaged or cannot be read.
    """
    path = run / "summary.json"
    try:
        summary = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: is damaged: {error}") from error
    if not isinstance(summary, dict):
        raise RunError(f"{path}: is damaged: it holds no table")
    return summary


def _refuse_content(path: Path) -> None:
    names = {entry.name for entry in path.iterdir()}
    if "manifest.json" in names:
        raise RunError(
            f"{path}: holds a run already; go on with it by `elsa resume {path}`, "
            "or name another folder with --out"
        )
    if any(name != "lock" and not name.endswith(".partial") for name in names):
        raise RunError(f"{path}: is not empty; name a new or empty folder with --out")


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""A whole run directory, read for looking at it: also one that is unfinished, old or damaged.

The manifest must be there and whole. Of everything else what can be read is read, and `notes` say
in words what could not be.
"""

import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from elsa.errors import RunError
from elsa.record.directory import read_summary
from elsa.record.events import Clustered, Event
from elsa.record.lines import read_lines
from elsa.record.log import parse_entry
from elsa.record.manifest import Manifest, read_manifest

T = TypeVar("T")
LARGEST = 64 * 10**6
"""Bytes of a file of clusters, unpacked; one that claims more is not opened."""


@dataclass(frozen=True)
class Clustering:
    """Devices after a clustering.

    Attributes:
        round: global round after which it was made.
        devices: their names.
        labels: cluster of each.
        plane: a point in the plane for each; distances are like square roots of how far apart
            they are.
    """

    round: int
    devices: tuple[str, ...]
    labels: tuple[int, ...]
    plane: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class RunRecord:
    """What a run directory holds, as far as it can be read.

    Attributes:
        path: the folder.
        manifest: what it was started with.
        summary: its result; None if the run has not ended.
        events: what happened, in order.
        clusterings: by round.
        plan: plan.json, what each device was reckoned to hold and do; None without one.
        audit: audit/audit.json, what attacks read; None without one.
        notes: what could not be read, and why.
    """

    path: Path
    manifest: Manifest
    summary: Mapping[str, Any] | None
    events: tuple[Event, ...]
    clusterings: tuple[Clustering, ...]
    plan: Mapping[str, Any] | None
    audit: Mapping[str, Any] | None
    notes: tuple[str, ...]


def read_run(path: Path) -> RunRecord:
    """Read a run directory; nothing in it is changed or locked.

    Raises:
        RunError: it is no run directory, or one of another version, or its manifest is damaged.
    """
    manifest = read_manifest(path)
    notes: list[str] = []
    events = _events(path / "events.jsonl", notes)
    return RunRecord(
        path=path,
        manifest=manifest,
        summary=_tried(lambda: read_summary(path), notes),
        events=events,
        clusterings=_clusterings(path, events, notes),
        plan=_tried(lambda: _table(path / "plan.json"), notes),
        audit=_tried(lambda: _table(path / "audit" / "audit.json"), notes),
        notes=tuple(notes),
    )


def _tried(read: Callable[[], T], notes: list[str]) -> T | None:
    try:
        return read()
    except RunError as error:
        notes.append(str(error))
        return None


def _table(path: Path) -> dict[str, Any] | None:
    """The table in a JSON file; None if there is no such file."""
    try:
        table = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: is damaged: {error}") from error
    if not isinstance(table, dict):
        raise RunError(f"{path}: is damaged: it holds no table")
    return table


def _events(path: Path, notes: list[str]) -> tuple[Event, ...]:
    found: list[Event] = []
    unknown = []
    for number, line in enumerate(_tried(lambda: read_lines(path), notes) or [], start=1):
        try:
            found.append(parse_entry(line).event)
        except ValueError:
            unknown.append(number)
    if unknown:
        lines = "line" if len(unknown) == 1 else "lines"
        notes.append(
            f"{path}: {len(unknown)} {lines} cannot be read by this elsa and are left out, "
            f"the first of them line {unknown[0]}"
        )
    return tuple(found)


def _clusterings(path: Path, events: tuple[Event, ...], notes: list[str]) -> tuple[Clustering, ...]:
    rounds = {event.round for event in events if isinstance(event, Clustered)}
    found = []
    for number in sorted(rounds):
        # Made from the round, not from the name in the log: that could point anywhere.
        file = path / "clusters" / f"round-{number:06d}.npz"
        made = _tried(partial(_clustering, file, number), notes)
        if made is not None:
            found.append(made)
    return tuple(found)


def _clustering(path: Path, number: int) -> Clustering:
    import numpy as np  # late: few runs have clusters, and the others need not wait for it

    try:
        with zipfile.ZipFile(path) as file:
            if sum(entry.file_size for entry in file.infolist()) > LARGEST:
                raise RunError(f"{path}: is larger than any file of clusters")
        with np.load(path, allow_pickle=False) as arrays:
            devices = [str(name) for name in arrays["devices"]]
            labels = [int(label) for label in arrays["labels"]]
            plane = [(float(x), float(y)) for x, y in arrays["plane"]]
    except RunError:
        raise
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # numpy and zipfile raise a dozen kinds on damaged files
        raise RunError(f"{path}: is damaged: {error}") from error
    finite = all(math.isfinite(value) for point in plane for value in point)
    if not len(devices) == len(labels) == len(plane) or not finite:
        raise RunError(f"{path}: is damaged: its arrays do not belong together")
    return Clustering(number, tuple(devices), tuple(labels), tuple(plane))

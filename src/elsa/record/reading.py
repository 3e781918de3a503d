"""A whole run directory, read for looking at it: also one that is unfinished, old or damaged.

The manifest must be there and whole. Of everything else what can be read is read, and `notes` say
in words what could not be.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from elsa.errors import RunError
from elsa.record.behaviour import Clustering, read_clustering
from elsa.record.directory import read_summary
from elsa.record.events import Clustered, Event
from elsa.record.lines import read_lines
from elsa.record.log import parse_entry
from elsa.record.manifest import Manifest, read_manifest

T = TypeVar("T")


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
    rounds = sorted({event.round for event in events if isinstance(event, Clustered)})
    found = (_tried(partial(read_clustering, path, number), notes) for number in rounds)
    return tuple(made for made in found if made is not None)

"""What the runs were: settings that differ from the defaults, versions, machine, files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from elsa.config.schema import Config
from elsa.report.history import History
from elsa.report.numbers import NOTHING, number, size
from elsa.report.parts import Cell, Part, Section, Table

DIGITS = 16
"""Of a digest that are shown."""


def section(runs: Sequence[History]) -> Section:
    """Settings as differences, then the manifests."""
    table = settings(runs)
    words = [] if table.rows else ["Every setting has its default."]
    tables = [table] if table.rows else []
    parts = [
        Part("Settings that differ from the defaults", words, tables=tables),
        Part("Provenance", tables=[_provenance(runs)]),
    ]
    return Section("settings", "Config and manifest", parts)


def settings(runs: Sequence[History]) -> Table:
    """A row for each setting that some run changed; runs that differ in it stand out."""
    default = dict(flattened(Config().model_dump(mode="json")))
    own = [dict(flattened(run.record.manifest.config)) for run in runs]
    rows: list[list[Cell | str]] = []
    for key in dict.fromkeys([*default, *(key for each in own for key in each)]):
        values = [_text(each.get(key, _ABSENT)) for each in own]
        before = _text(default.get(key, _ABSENT))
        if all(value == before for value in values):
            continue
        apart = len(set(values)) > 1
        cells = [Cell(value, strong=apart and value != before) for value in values]
        rows.append([Cell(key), before, *cells])
    columns = ("Setting", "Default", *(run.label for run in runs))
    return Table("Settings; — where this elsa or the run does not know one", columns, rows)


_ABSENT = object()


def flattened(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, object]]:
    """Dotted paths and values of nested tables."""
    for name, value in table.items():
        key = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping) and value and key.count(".") < 8:
            yield from flattened(value, key)
        else:
            yield key, value


def _text(value: object) -> str:
    if value is _ABSENT:
        return "—"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a default of 20.0 is written so, and read back as 20
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _provenance(runs: Sequence[History]) -> Table:
    facts = [dict(_facts(run)) for run in runs]
    names = list(dict.fromkeys(name for each in facts for name in each))
    rows = []
    for name in names:
        values = [each.get(name, NOTHING) for each in facts]
        apart = len(set(values)) > 1
        rows.append([Cell(name), *(Cell(value, strong=apart) for value in values)])
    return Table("Manifests", ("", *(run.label for run in runs)), rows)


def _facts(run: History) -> Iterator[tuple[str, str]]:
    manifest = run.record.manifest
    yield "folder", str(run.record.path)
    yield "name", manifest.name
    yield "seed", str(manifest.seed)
    yield "begun", _when(manifest.created)
    for name, value in manifest.machine.items():
        memory = number(value) if name == "memory_bytes" else None
        yield (
            f"machine: {name.removesuffix('_bytes')}",
            str(value) if memory is None else size(memory),
        )
    for name, value in manifest.versions.items():
        yield f"version: {name}", value
    for what, files in (("model", manifest.model), ("data", manifest.data)):
        for name, digest in files.items():
            yield f"{what}: {name}", f"SHA-256 {digest[:DIGITS]}…"


def _when(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, OSError, ValueError):
        return NOTHING

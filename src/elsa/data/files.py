"""Reading a user's own rows: CSV, JSONL, Parquet, or a directory of `datasets.save_to_disk`."""

import csv
import difflib
import json
from pathlib import Path

from elsa.data.table import Cells, Columns, Parts
from elsa.errors import DataError

_Raw = dict[str, Cells]

SUFFIXES = (".csv", ".jsonl", ".parquet")


def read_file(path: Path, columns: Columns) -> tuple[Parts, Parts | None]:
    """The named columns of a file; and of its test part, where it has one.

    Only a `datasets` directory with splits named `train` and `test` has a test part.

    Raises:
        DataError: not there, of another format, cannot be parsed, or a column is missing.
    """
    if path.is_dir():
        splits = _datasets_directory(path)
    elif not path.exists():
        raise DataError(f"{path}: no such file or directory")
    elif path.suffix.lower() == ".csv":
        splits = {"train": _csv(path)}
    elif path.suffix.lower() == ".jsonl":
        splits = {"train": _jsonl(path)}
    elif path.suffix.lower() == ".parquet":
        splits = {"train": _parquet(path)}
    else:
        raise DataError(
            f"{path}: the name ends in '{path.suffix}'; allowed are {', '.join(SUFFIXES)} and "
            "directories written by `datasets`"
        )
    where = {name: f"{path} ({name})" if "test" in splits else str(path) for name in splits}
    parts = {name: _choose(raw, columns, where[name]) for name, raw in splits.items()}
    return parts["train"], parts.get("test")


def _choose(raw: _Raw, names: Columns, where: str) -> Parts:
    def column(role: str, name: str) -> Cells:
        if name in raw:
            return raw[name]
        close = difflib.get_close_matches(name, raw, n=1, cutoff=0.5)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        there = ", ".join(f"'{known}'" for known in raw)
        raise DataError(
            f"{where} has no column '{name}' ({names.keys}{role}); it has {there}{hint}"
        )

    def optional(role: str, name: str) -> Cells | None:
        return column(role, name) if name else None

    return Parts(
        where,
        names,
        () if names.messages else column("text", names.text),
        optional("pair", names.pair),
        optional("label", names.label),
        optional("group", names.group),
        optional("answer", names.answer),
        optional("messages", names.messages),
    )


def _not_text(path: Path, exc: UnicodeDecodeError) -> DataError:
    return DataError(
        f"{path} is not UTF-8 (byte {exc.object[exc.start]:#04x}: {exc.reason}): save it as UTF-8"
    )


def _csv(path: Path) -> _Raw:
    with path.open(encoding="utf-8-sig", newline="") as source:
        reader = csv.reader(source, strict=True)
        try:
            header = next(reader, [])
            if not header:
                raise DataError(f"{path} is empty: its first line must name the columns")
            if len(set(header)) < len(header):
                raise DataError(f"{path} names a column twice: {', '.join(header)}")
            rows = []
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(cells)} cells instead of "
                        f"{len(header)}; cells with a comma or a line break need double quotes"
                    )
                if cells:
                    rows.append(cells)
        except csv.Error as exc:
            raise DataError(
                f"{path}, line {reader.line_num}: not valid CSV: {exc}; JSONL and Parquet know no "
                "quoting and no limit on the length of a cell"
            ) from exc
        except UnicodeDecodeError as exc:
            raise _not_text(path, exc) from exc
    return {name: [cells[place] for cells in rows] for place, name in enumerate(header)}


def _jsonl(path: Path) -> _Raw:
    rows: list[dict[str, object]] = []
    names: dict[str, None] = {}
    try:
        with path.open(encoding="utf-8-sig") as source:
            for number, line in enumerate(source, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as exc:
                    raise DataError(f"{path}, line {number}: not valid JSON: {exc}") from exc
                if not isinstance(row, dict):
                    raise DataError(
                        f"{path}, line {number}: {type(row).__name__} instead of an object with "
                        "a key for each column"
                    )
                rows.append(row)
                names.update(dict.fromkeys(row))
    except UnicodeDecodeError as exc:
        raise _not_text(path, exc) from exc
    if not rows:
        raise DataError(f"{path} has no rows")
    return {name: [row.get(name) for row in rows] for name in names}


def _parquet(path: Path) -> _Raw:
    import pandas

    try:
        frame = pandas.read_parquet(path)
    except (OSError, ValueError) as exc:
        raise DataError(f"{path} cannot be read as Parquet: {exc}") from exc
    return {str(name): frame[name].tolist() for name in frame.columns}


def _datasets_directory(path: Path) -> dict[str, _Raw]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as exc:
        raise DataError(
            f"{path} is not a directory written by `datasets` (save_to_disk): {exc}"
        ) from exc
    if not isinstance(loaded, datasets.DatasetDict):
        return {"train": _columns_of(loaded)}
    if "train" not in loaded:
        raise DataError(f"{path} has the splits {', '.join(loaded)}, but none named 'train'")
    return {name: _columns_of(loaded[name]) for name in ("train", "test") if name in loaded}


def _columns_of(dataset: object) -> _Raw:
    import datasets

    assert isinstance(dataset, datasets.Dataset)
    raw: _Raw = {}
    for name, feature in dataset.features.items():
        cells = dataset.with_format(None)[name][:]
        if isinstance(feature, datasets.ClassLabel):
            known = feature.names
            cells = [None if cell is None or cell < 0 else known[cell] for cell in cells]
        raw[name] = cells
    return raw

"""From a path or an asset's name to training rows and test rows."""

import difflib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from elsa.data.asset_tables import read_asset
from elsa.data.assets import Say, fetch, find_asset
from elsa.data.catalogue import ASSETS, Asset
from elsa.data.files import read_file
from elsa.data.table import TEXT_AND_LABEL, Columns, Parts, Table, make_table
from elsa.errors import DataError

_LIMIT, _SPLIT = 1, 2
"""What a generator is for, so that no two draw the same numbers from one seed."""


@dataclass(frozen=True)
class _Source:
    train: Table
    test: Table | None
    split_by_group: bool


def load_table(
    path: str,
    columns: Columns = TEXT_AND_LABEL,
    cache: Path | None = None,
    say: Say = lambda _: None,
) -> Table:
    """The rows of an asset or a file; the training part, where there are two.

    Args:
        path: name of an asset, or a CSV, JSONL or Parquet file, or a `datasets` directory. An
            asset's name wins; write ./name for a file of that name.
        columns: names of the columns; an asset has its own, and heeds only the classes, whether
            `label` is empty (then there are no labels) and which column `answer` names, its answers
            or its labels (else its rows are plain text).
        cache: cache folder of assets; None takes the default.
        say: told about downloads.

    Raises:
        DataError: what is there cannot be used; the message says where and why.
        AssetError: the asset cannot be fetched.
    """
    return _load(path, columns, cache, say).train


def load_split(
    path: str,
    columns: Columns = TEXT_AND_LABEL,
    *,
    test: str = "",
    test_fraction: float = 0.2,
    limit: int = 0,
    seed: int = 0,
    cache: Path | None = None,
    say: Say = lambda _: None,
) -> tuple[Table, Table]:
    """Training rows and test rows.

    The test rows are those of `test` if given, else the official test part, else `test_fraction`
    of the rows: drawn by the seed, each class in proportion, at least one row of each class left
    to train on (privacyqa: whole questions). The classes are those of the training rows.

    Args:
        path: see `load_table`.
        columns: see `load_table`.
        test: file or directory of test rows, with the same columns; empty for none.
        test_fraction: part of the rows to split off, over 0 and below 1.
        limit: rows to use of `path`, training and test together, drawn by the seed, each class in
            proportion; 0 uses all. A file named by `test` is used whole.
        seed: of the draws.
        cache: see `load_table`.
        say: see `load_table`.

    Raises:
        DataError: what is there cannot be used; the message says where and why.
        AssetError: the asset cannot be fetched.
    """
    source = _load(path, columns, cache, say)
    train, official = source.train, source.test
    if test:
        official = None
    total = len(train) + (len(official) if official else 0)
    if 0 < limit < total:
        generator = np.random.default_rng((seed, _LIMIT))
        if official:
            kept = min(max(1, round(limit * len(official) / total)), max(1, limit - 1))
            official = official.take(_draw(official.label, len(official), kept, generator))
            limit = max(1, limit - kept)
        train = train.take(_draw(train.label, len(train), limit, generator))
    if test:
        return train, _test_rows(test, columns, train)
    if official:
        return train, official
    return _split(train, test_fraction, seed, source.split_by_group)


def _load(path: str, columns: Columns, cache: Path | None, say: Say) -> _Source:
    asset = find_asset(path)
    if asset:
        return _load_asset(asset, columns, cache, say)
    if not Path(path).exists():
        tables = [name for name, known in ASSETS.items() if known.kind == "table"]
        close = difflib.get_close_matches(path, tables, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise DataError(
            f"data.path = '{path}' is neither an asset nor a file or directory that is there. "
            f"Assets: {', '.join(tables)}.{hint}"
        )
    train, test = read_file(Path(path), columns)
    table = make_table(train, columns.classes or None)
    return _Source(table, make_table(test, table.label_names) if test else None, False)


def _load_asset(asset: Asset, columns: Columns, cache: Path | None, say: Say) -> _Source:
    if asset.kind != "table":
        raise DataError(f"data.path = '{asset.name}' is a model; give it as model.path")
    folder = fetch(asset.name, cache, say)
    raw = read_asset(asset.name, [folder / file for file in asset.files])
    train = make_table(_answering(raw.train, columns), columns.classes or None)
    test = make_table(_answering(raw.test, columns), train.label_names) if raw.test else None
    if not columns.label:
        return _Source(_free(train, columns), test and _free(test, columns), raw.split_by_group)
    if train.label is None:
        raise DataError(
            f"data.path = '{asset.name}' has no labels: it is for model.task = 'causal-lm'"
        )
    return _Source(train, test, raw.split_by_group)


def _answering(parts: Parts, columns: Columns) -> Parts:
    """The asset's rows with the answers that were asked for."""
    if columns.messages:
        raise DataError(
            f"data.messages = '{columns.messages}': data.path = '{parts.where}' has no column of "
            "conversations; leave data.messages empty"
        )
    own = {parts.names.answer: parts.answer, parts.names.label: parts.label}
    answers = {name: cells for name, cells in own.items() if name and cells is not None}
    if not columns.answer:
        return parts
    if columns.answer not in answers:
        allowed = ", ".join(f"'{name}'" for name in ("", *answers))
        raise DataError(
            f"data.answer = '{columns.answer}': data.path = '{parts.where}' has no such column; "
            f"allowed: {allowed}"
        )
    names = replace(parts.names, answer=columns.answer)
    return replace(parts, answer=answers[columns.answer], names=names)


def _free(table: Table, columns: Columns) -> Table:
    """Without labels; and without conversations, unless answers were asked for."""
    chat = table.chat if columns.answer else None
    return replace(table, label=None, label_names=(), chat=chat)


def _test_rows(path: str, columns: Columns, train: Table) -> Table:
    if not Path(path).exists():
        raise DataError(f"data.test = '{path}' is no file or directory that is there")
    parts, own_test = read_file(Path(path), columns)
    return make_table(own_test or parts, train.label_names)


def _split(table: Table, fraction: float, seed: int, by_group: bool) -> tuple[Table, Table]:
    rows = len(table)
    take = max(1, round(rows * fraction))
    generator = np.random.default_rng((seed, _SPLIT))
    if by_group:
        assert table.group is not None
        test = _draw_groups(table.group, take, generator)
    else:
        test = _draw(table.label, rows, take, generator, leave=1)
    if not 0 < fraction < 1 or len(test) in (0, rows):
        raise DataError(
            f"data.test_fraction = {fraction} of {rows} rows leaves nothing to train on or "
            "nothing to test on: change it, give more rows, or name a file in data.test"
        )
    train = np.setdiff1d(np.arange(rows), test)
    return table.take(train), table.take(test)


def _draw(
    label: NDArray[np.int64] | None,
    rows: int,
    take: int,
    generator: np.random.Generator,
    leave: int = 0,
) -> NDArray[np.int64]:
    """Sorted indices of `take` of the rows, each class in proportion (largest remainder).

    At least `leave` rows of each class are not taken, so it may be fewer than `take`.
    """
    classes = np.zeros(rows, np.int64) if label is None else label
    counts = np.bincount(classes)
    quota = counts * min(take, rows) / rows
    share = np.minimum(np.floor(quota).astype(np.int64), np.maximum(counts - leave, 0))
    for place in np.argsort(share - quota, kind="stable"):
        if share.sum() < take and share[place] < counts[place] - leave:
            share[place] += 1
    order = generator.permutation(rows)
    picked = [order[classes[order] == place][:size] for place, size in enumerate(share)]
    return np.sort(np.concatenate(picked))


def _draw_groups(
    group: tuple[str, ...], take: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Sorted indices of all rows of some groups, at least `take` rows unless all groups go."""
    _, of_row = np.unique(np.asarray(group), return_inverse=True)
    counts = np.bincount(of_row)
    order = generator.permutation(len(counts))
    enough = int(np.searchsorted(np.cumsum(counts[order]), take)) + 1
    return np.flatnonzero(np.isin(of_row, order[:enough]))

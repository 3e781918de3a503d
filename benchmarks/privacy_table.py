"""The table and the plots of the privacy study, from the cells that are there."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from elsa.audit.front import Point, draw_front

LOOKS = {
    "matching": ("tokens", "matching", "recovery"),
    "adaptive": ("tokens", "matching, adaptive", "recovery"),
    "language": ("tokens", "language", "recovery"),
    "shape": ("tokens", "shape", "recovery"),
    "known": ("tokens", "known texts", "recovery"),
    "inverter": ("tokens", "inverter", "recovery"),
    "adaptive inverter": ("tokens", "inverter, adaptive", "recovery"),
    "labels": ("labels", "gradients", "accuracy"),
    "labels, adaptive": ("labels", "gradients, adaptive", "accuracy"),
    "predictions": ("labels", "predictions", "accuracy"),
    "members": ("membership", "loss", "AUC"),
}
"""Columns, and the rows of an audit that they show."""

Row = dict[str, Any]


def rows_of(out: Path, corpora: Iterable[str], arms: Iterable[str]) -> list[Row]:
    """A row a corpus and arm: accuracy over its seeds, attacks over those that were attacked."""
    arms = list(arms)
    found: list[Row] = []
    for corpus in corpora:
        plain = _mean([it["accuracy"] for it in _cells(out, corpus, "none")])
        for arm in arms:
            cells = _cells(out, corpus, arm)
            if cells:
                found.append({"corpus": corpus, "arm": arm, **_row(cells, plain)})
    return found


def plot(out: Path, rows: Sequence[Row]) -> None:
    """CORPUS.svg for each corpus with accuracies and attacks."""
    for corpus in dict.fromkeys(row["corpus"] for row in rows):
        points = [
            Point(row["arm"], best["value"], best["low"], best["high"], row["lost"])
            for row in rows
            if row["corpus"] == corpus and (best := row["best"]) and row["lost"] != "-"
        ]
        if points:
            draw_front(out / f"{corpus}.svg", points, corpus)


def _row(cells: Sequence[Mapping[str, Any]], plain: float | str) -> Row:
    accuracies = [it["accuracy"] for it in cells]
    middle = _mean(accuracies)
    known = isinstance(middle, float) and isinstance(plain, float)
    audits = [it["rows"] for it in cells if it["rows"]]
    row: Row = {
        "seeds": len(cells),
        "accuracy": middle,
        "lost": 100 * (plain - middle) if known else "-",  # type: ignore[operator]
    }
    for name, key in LOOKS.items():
        row[name] = _mean([it["value"] for audit in audits if (it := _score(audit, key))])
    row["epsilon"] = next((it["epsilon"] for it in cells if it.get("epsilon")), "-")
    tokens = [
        it["score"] | {"attack": it["attack"]}
        for audit in audits
        for it in audit
        if (it["about"], it["measure"]) == ("tokens", "recovery")
    ]
    row["best"] = max(tokens, key=lambda it: float(it["value"]), default=None)
    return row


def _cells(out: Path, corpus: str, arm: str) -> list[dict[str, Any]]:
    paths = sorted((out / "cells" / corpus / arm).glob("*.json"))
    return [json.loads(path.read_text("utf-8")) for path in paths]


def _score(audit: Sequence[Mapping[str, Any]], key: tuple[str, str, str]) -> dict[str, Any] | None:
    for it in audit:
        if (it["about"], it["attack"], it["measure"]) == key:
            score: dict[str, Any] = it["score"]
            return score
    return None


def _mean(values: Sequence[float | None]) -> float | str:
    held = [it for it in values if it is not None]
    return mean(held) if held else "-"

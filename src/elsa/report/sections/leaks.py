"""What attacks read from what an edge server sees: `elsa audit`, if it was asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elsa.report.bars import Estimate, intervals
from elsa.report.history import History
from elsa.report.numbers import NOTHING, clean, fixed, number
from elsa.report.parts import Figure, Part, Section, Table
from elsa.report.svg import point

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Attacked:
    """An attack's score: value, interval, what guessing gives, and what it knows."""

    value: float
    low: float
    high: float
    chance: float | None
    knows: str


def section(runs: Sequence[History]) -> Section:
    """Scores with intervals, with and without defence; of the runs that were audited."""
    parts = []
    for run in runs:
        found = _columns(run)
        if found:
            parts.append(_part(run, found, len(runs) > 1))
    return Section("audit", "Audit: what an edge server can read", parts)


def _columns(run: History) -> dict[str, dict[Key, Attacked]]:
    """Scores of each arm, by what is attacked, how, and what is counted."""
    attacks = (run.record.audit or {}).get("attacks")
    if not isinstance(attacks, dict):
        return {}
    found = {
        clean(arm, 40): {key: it for row in rows if (key := _key(row)) and (it := _score(row))}
        for arm, rows in attacks.items()
        if isinstance(rows, list)
    }
    return {arm: rows for arm, rows in sorted(found.items()) if rows}


def _key(row: object) -> Key | None:
    if not isinstance(row, dict):
        return None
    about, attack, measure = (str(row.get(name, "")) for name in ("about", "attack", "measure"))
    return about, attack, measure


def _score(row: Mapping[str, Any]) -> Attacked | None:
    score = row.get("score")
    if not isinstance(score, dict):
        return None
    value, low, high = (number(score.get(name)) for name in ("value", "low", "high"))
    if value is None or low is None or high is None or not 0 <= low <= high <= 1:
        return None
    chance = number(score.get("chance"))
    sure = chance if chance is not None and 0 <= chance <= 1 else None
    return Attacked(min(max(value, 0.0), 1.0), low, high, sure, str(row.get("knows", "")))


def _part(run: History, found: Mapping[str, Mapping[Key, Attacked]], several: bool) -> Part:
    arms = list(found)
    keys = list(dict.fromkeys(key for rows in found.values() for key in rows))
    drawn = []
    for key in keys:
        estimates = [
            Estimate(place, it.value, it.low, it.high, f"{arm}: {it.value:.3f}")
            for place, arm in enumerate(arms)
            if (it := found[arm].get(key))
        ]
        chances = [it.chance for rows in found.values() if (it := rows.get(key))]
        drawn.append((f"{key[0]}: {key[1]} ({key[2]})", estimates, chances[0]))
    said = "Success of attacks. " + "; ".join(
        f"{name}: {', '.join(it.hint for it in estimates)}" for name, estimates, _ in drawn
    )
    words = [
        "Each attack is that of a curious edge server; what it knows besides is in the table. "
        "1 is everything; the upright line is what guessing gives. Intervals are 95 % over texts."
    ]
    figures = [Figure("Success of each attack", intervals(said, drawn, "share, or AUC"))]
    key_ = [(point(place), arm) for place, arm in enumerate(arms)]
    return Part(run.label if several else "", words, key_, figures, [_table(keys, found)])


def _table(keys: Sequence[Key], found: Mapping[str, Mapping[Key, Attacked]]) -> Table:
    columns = ("About", "Attack", "Score", *found, "Chance", "The attacker knows")
    rows = []
    for key in keys:
        known = [it for rows in found.values() if (it := rows.get(key))]
        cells = [_cell(rows.get(key)) for rows in found.values()]
        rows.append([*key, *cells, fixed(known[0].chance), known[0].knows])
    numbers = frozenset(range(3, len(found) + 4))
    return Table("Attacks, with 95 % intervals", columns, rows, numbers)


def _cell(it: Attacked | None) -> str:
    return NOTHING if it is None else f"{it.value:.3f} ({it.low:.3f} to {it.high:.3f})"

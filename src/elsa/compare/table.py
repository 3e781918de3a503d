"""The results as tables: text cells for people, numbers for CSV."""

import csv
import io
from collections.abc import Sequence

from elsa.compare.numbers import Difference, Spread
from elsa.compare.outcome import HOPS
from elsa.compare.results import Results, Row, title_of

Lines = list[list[str]]
"""A table: the titles first."""


def accuracy_table(results: Results) -> Lines:
    """Accuracy and what it differs by; points are hundredths."""
    against = f"points to {title_of(results.against)}"
    titles = ["method", "accuracy", against, "worst device", "points there", "seeds", "rate"]
    rows = [
        [
            title_of(row.method),
            share(row.accuracy),
            points(row.differences["accuracy"]),
            share(row.worst_device),
            points(row.differences["worst_device"]),
            str(row.accuracy.count),
            f"{row.rate:g}",
        ]
        for row in results.rows
    ]
    return [titles, *rows]


def cost_table(results: Results) -> Lines:
    """What it takes: rounds and time to the target, bytes by hop, memory and operations."""
    target = f"{results.target:g}"
    titles = [
        "method",
        f"rounds to {target}",
        f"time to {target}",
        "device up",
        "device down",
        "edge up",
        "edge down",
        "device memory",
        "device GFLOP",
        "server GFLOP",
        "wall time",
    ]
    rows = [
        [
            title_of(row.method),
            _reached(row, row.rounds, ".0f", ""),
            _reached(row, row.seconds, ".0f", " s"),
            *(_megabytes(row.bytes[hop]) for hop in HOPS),
            _number(row.cost.device_memory if row.cost else None, 1e6, ".0f", " MB"),
            _number(row.cost.device_flops if row.cost else None, 1e9, ".1f"),
            _number(row.cost.server_flops if row.cost else None, 1e9, ".1f"),
            f"{row.wall_seconds.mean:.0f} s" if row.wall_seconds else "-",
        ]
        for row in results.rows
    ]
    return [titles, *rows]


def markdown(lines: Lines) -> str:
    """A table as Markdown."""
    titles, *rows = lines
    shown = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in shown) + "\n"


def to_csv(results: Results) -> str:
    """A line a run, with all its numbers; bytes that a method has not are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = ("accuracy", "loss", "mean_device", "worst_device")
    spent = ("samples", "simulated_seconds", "wall_seconds")
    costs = ("device_memory", "device_flops", "server_flops")
    writer.writerow(["method", "seed", "rate", *scores, *spent, *HOPS, *costs])
    held = {row.method: row.cost for row in results.rows}
    for it in results.outcomes:
        cells: list[object] = [it.method, it.seed, it.rate]
        cells += [getattr(it, name) for name in (*scores, *spent)]
        cells += [it.bytes[hop] for hop in HOPS]
        cells += [getattr(held[it.method], name, None) for name in costs]
        writer.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()


def remarks(results: Results) -> Sequence[str]:
    """What readers must know of single methods."""
    return [f"{title_of(row.method)}: {row.remark}" for row in results.rows if row.remark]


def share(held: Spread | None) -> str:
    """Mean and deviation."""
    if held is None:
        return "-"
    return f"{held.mean:.4f}" + ("" if held.deviation is None else f" ± {held.deviation:.4f}")


def points(held: Difference | None) -> str:
    """Hundredths, with the interval."""
    if held is None:
        return "-"
    if held.low is None or held.high is None:
        return f"{100 * held.mean:+.2f}"
    return f"{100 * held.mean:+.2f} ({100 * held.low:+.2f} to {100 * held.high:+.2f})"


def _reached(row: Row, held: Spread | None, form: str, unit: str) -> str:
    if held is None:
        return "not reached"
    some = "" if row.reached == row.accuracy.count else f" ({row.reached} of {row.accuracy.count})"
    return f"{held.mean:{form}}{unit}{some}"


def _megabytes(held: Spread | None) -> str:
    if held is None:
        return "-"
    return f"{held.mean / 1e6:,.0f} MB" if held.mean >= 1e7 else f"{held.mean / 1e6:.1f} MB"


def _number(value: float | None, unit: float, form: str, name: str = "") -> str:
    return "-" if value is None else f"{value / unit:{form}}{name}"

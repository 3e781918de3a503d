"""The result: final numbers of every run, side by side."""

from collections.abc import Callable, Sequence

from elsa.report.history import HOPS, PADDED, UNITS, History
from elsa.report.numbers import (
    NOTHING,
    fixed,
    number,
    shown_duration,
    shown_size,
)
from elsa.report.parts import Cell, Part, Section, Table
from elsa.report.sections.memory import reckoned
from elsa.report.sections.traffic import sent

Measure = Callable[[History], str]


def section(runs: Sequence[History]) -> Section:
    """A row a run; for a run alone, a row a number."""
    tables = [_table(runs, caption, measures) for caption, measures in _measures().items()]
    return Section("result", "Result", [Part(tables=[it for it in tables if it.rows])])


def _table(runs: Sequence[History], caption: str, measures: Sequence[tuple[str, Measure]]) -> Table:
    shown = [(title, [tell(run) for run in runs]) for title, tell in measures]
    shown = [(title, cells) for title, cells in shown if any(it != NOTHING for it in cells)]
    if len(runs) == 1:
        return Table(
            caption, ("", runs[0].label), [[it, *cells] for it, cells in shown], frozenset({1})
        )
    rows: list[list[Cell | str]] = [
        [Cell(run.label, run.index), *(cells[place] for _, cells in shown)]
        for place, run in enumerate(runs)
    ]
    columns = ("Run", *(title for title, _ in shown))
    return Table(caption, columns, rows if shown else [], frozenset(range(1, len(columns))))


def tiles(run: History) -> list[tuple[str, str, str]]:
    """The numbers to see first: what, value, and a remark."""
    made = []
    for name, title in (
        ("accuracy", "test accuracy"),
        ("accuracy_mean_device", "mean over devices"),
    ):
        if (value := run.last(name)) is not None:
            worst = run.last("accuracy_worst_device")
            remark = "" if worst is None else f"worst device {worst:.3f}"
            made.append((title, f"{value:.3f}", remark))
            break
    else:
        if (loss := run.last("test loss")) is not None:
            perplexity = run.last("perplexity")
            remark = "" if perplexity is None else f"perplexity {perplexity:.2f}"
            made.append(("test loss", f"{loss:.3f}", remark))
    if (total := sent(run)) is not None:
        padded = run.total(PADDED)
        remark = f"{total / padded:.1%} of padded float32" if padded else ""
        made.append(("sent in training", shown_size(total), remark))
    if devices := reckoned(run):
        most = max(devices, key=lambda it: sum(it.memory.values()))
        held = sum(most.memory.values())
        made.append(
            ("device memory", shown_size(held), f"{most.share:.0%} of the whole model, reckoned")
        )
    if simulated := run.total("simulated"):
        wall = run.total("wall")
        made.append(
            ("simulated time", shown_duration(simulated), f"{shown_duration(wall)} of wall time")
        )
    return made


def state(run: History) -> str:
    """How far a run came, in words; empty if it ended."""
    if run.record.summary is not None:
        return ""
    of = "" if run.planned is None else f" of {run.planned}"
    return (
        f"{run.label} has not ended: {run.done}{of} rounds are done. "
        f"Go on with: elsa resume {run.record.path}"
    )


def _measures() -> dict[str, list[tuple[str, Measure]]]:
    def last(name: str, digits: int = 3) -> Measure:
        return lambda run: fixed(run.last(name), digits)

    def hop(name: str) -> Measure:
        return lambda run: shown_size(run.total(name) or None)

    return {
        "Scores at the end": [
            ("Test accuracy", last("accuracy")),
            ("Mean over devices", last("accuracy_mean_device")),
            ("Worst device", last("accuracy_worst_device")),
            ("Test perplexity", last("perplexity", 2)),
            ("Answers wholly right", last("answers")),
            ("Test loss", last("test loss")),
            ("Training loss", last("loss")),
        ],
        "What the noise is worth": [
            (f"Epsilon a {unit}, so far", last(f"epsilon {unit}")) for unit in UNITS
        ],
        "Effort": [
            ("Rounds", lambda run: str(run.done)),
            ("Samples", lambda run: fixed(run.total("samples"), 0)),
            ("Simulated time", lambda run: shown_duration(run.total("simulated") or None)),
            ("Wall time", lambda run: shown_duration(_summed(run, "wall_seconds"))),
            ("Memory of a device, reckoned", _device_memory),
            ("Peak memory of the process", lambda run: shown_size(_summed(run, "peak_rss_bytes"))),
        ],
        "Bytes in training": [
            *((title.capitalize(), hop(name)) for name, title in HOPS.items()),
            ("All hops", lambda run: shown_size(sent(run))),
            ("As padded float32", hop(PADDED)),
        ],
    }


def _summed(run: History, name: str) -> float | None:
    return number((run.record.summary or {}).get(name))


def _device_memory(run: History) -> str:
    held = [sum(it.memory.values()) for it in reckoned(run)]
    return shown_size(max(held, default=None))

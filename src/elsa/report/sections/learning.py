"""Learning curves: loss and accuracy over rounds, and what the accuracy took."""

from collections.abc import Sequence

from elsa.report.axis import bytes_text, of_rounds, ticks
from elsa.report.curves import Curve, horizontal, panel, span
from elsa.report.history import History
from elsa.report.numbers import NOTHING, fixed, shown_duration, shown_size
from elsa.report.parts import Figure, Part, Section, Table

LOSSES = {"loss": "Training loss", "test loss": "Test loss"}
SHARES = {
    "accuracy": "Test accuracy",
    "accuracy_mean_device": "Accuracy, mean over devices",
    "accuracy_worst_device": "Accuracy, worst device",
}
OTHERS = {"perplexity": "Test perplexity", "answers": "Answers wholly right, share"}
BETWEEN = ("device_to_edge", "edge_to_device")
TASKS = 12
UNITS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


def section(runs: Sequence[History]) -> Section:
    """Losses on one scale, accuracies on another."""
    tasks = sorted({name for run in runs for name in run.measured if name.startswith("task ")})
    shares = SHARES | {name: f"Test accuracy, {name}" for name in tasks[:TASKS]}
    figures = [
        *_over_rounds(runs, LOSSES, zero=True),
        *_over_rounds(runs, shares, most=1.0),
        *(it for name, title in OTHERS.items() for it in _over_rounds(runs, {name: title})),
    ]
    if not figures:
        words = ["No round has ended yet, so there is nothing to draw."]
        return Section("learning", "Learning", [Part(words=words)])
    words = []
    if not any(run.measured[name] for run in runs for name in ("test loss", *shares)):
        words.append("The adapters were not evaluated yet: there is only the loss of training.")
    if len(tasks) > TASKS:
        words.append(f"{TASKS} of {len(tasks)} tasks are drawn.")
    tables = [_table(run, len(runs) > 1) for run in runs if run.measured["loss"]]
    parts = [Part("Over rounds", words, (), figures, tables)]
    if taken := _taken(runs):
        parts.append(Part("What it took", figures=taken))
    return Section("learning", "Learning", parts)


def _over_rounds(
    runs: Sequence[History],
    names: dict[str, str],
    zero: bool = False,
    most: float | None = None,
) -> list[Figure]:
    """A panel for each measure that some run has, all on one scale."""
    groups = {name: [run.curve(name) for run in runs if run.measured[name]] for name in names}
    marked = span(groups.values(), zero=zero, most=most)
    if marked is None:
        return []
    last = max(max(run.measured["loss"], default=0) for run in runs) + 1
    last = max([last, *(int(it.points[-1][0]) for curves in groups.values() for it in curves)])
    axis = horizontal((1.0, 2.0))
    across = of_rounds(last, axis.start, axis.end)
    return [
        Figure(names[name], panel(_said(names[name], curves), curves, across, marked, "round"))
        for name, curves in groups.items()
        if curves
    ]


def _taken(runs: Sequence[History]) -> list[Figure]:
    """The accuracy, or the test loss where there is none, against bytes and simulated time."""
    found = [name for name in ("accuracy", "accuracy_mean_device", "test loss") if _has(runs, name)]
    if not found:
        return []
    name = found[0]
    title = (SHARES | LOSSES)[name]
    figures = []
    longest = max((run.total("simulated") or 0.0 for run in runs), default=0.0)
    unit, seconds = next((it for it in UNITS if longest >= 3 * it[1]), UNITS[-1])
    for names, scale, short, what, text in (
        (BETWEEN, 1.0, "bytes sent", "bytes between devices and edges", bytes_text),
        (("simulated",), seconds, "simulated time", f"simulated time, {unit}", None),
    ):
        curves = [_against(run, name, names, scale) for run in runs if run.measured[name]]
        marked = span([curves], zero=name == "test loss", most=1.0 if name in SHARES else None)
        reach = max((x for curve in curves for x, _ in curve.points), default=0.0)
        if marked is None or reach <= 0:
            continue
        across = horizontal(ticks(0.0, reach, most=4), text)
        heading = f"{title} against {short}"
        drawn = panel(_said(heading, curves), curves, across, marked, what)
        figures.append(Figure(heading, drawn))
    return figures


def _has(runs: Sequence[History], name: str) -> bool:
    return any(run.measured[name] for run in runs)


def _against(run: History, name: str, names: Sequence[str], scale: float) -> Curve:
    spent = run.so_far(names)
    scores = sorted(run.measured[name].items())
    points = [(spent[round_] / scale, score) for round_, score in scores if round_ in spent]
    return Curve(run.index, run.label, points)


def _said(title: str, curves: Sequence[Curve]) -> str:
    ends = [f"{it.name} ends at {it.points[-1][1]:.4g}" for it in curves if it.points]
    return f"{title}. {'; '.join(ends)}."


def _table(run: History, several: bool) -> Table:
    shown = [
        (name, title) for name, title in (LOSSES | SHARES | OTHERS).items() if run.measured[name]
    ]
    spent = run.so_far(BETWEEN)
    rounds = sorted(set(run.measured["loss"]) | set(run.measured["test loss"]))
    rows = [
        [
            str(round_ + 1),
            *(fixed(run.measured[name].get(round_), 4) for name, _ in shown),
            shown_size(spent.get(round_)),
            shown_duration(run.measured["simulated"].get(round_)),
        ]
        for round_ in rounds
    ]
    titles = [title for _, title in shown]
    columns = ("Round", *titles, "Devices and edges, so far", "Simulated time")
    caption = f"Every round of {run.label}" if several else "Every round"
    caption += f"; {NOTHING} where nothing was evaluated"
    return Table(caption, columns, rows, frozenset(range(len(columns))), folded=True)

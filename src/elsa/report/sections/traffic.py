"""Bytes by hop and direction, beside the same exchange as padded float32."""

from collections.abc import Sequence

from elsa.report import svg
from elsa.report.axis import bytes_text, of_rounds
from elsa.report.bars import Bar, Row, bars
from elsa.report.curves import Curve, horizontal, panel, span
from elsa.report.history import HOPS, PADDED, History
from elsa.report.numbers import NOTHING, number, shown_size, size
from elsa.report.parts import Cell, Figure, Part, Section, Table


def section(runs: Sequence[History]) -> Section:
    """Totals as bars from zero, and the sum of all hops by round."""
    counted = [run for run in runs if any(run.measured[hop] for hop in HOPS)]
    if not counted:
        words = ["No round has ended yet, so nothing was counted."]
        return Section("bytes", "Bytes on the wire", [Part(words=words)])
    words = [
        "Counted from the frames as they were serialised, in training. A split sends hidden states "
        "and gradients at every local step; plain federated averaging of adapters sends far less "
        "between device and edge, and needs the whole model on the device."
    ]
    rows = [
        Row(title.capitalize(), [_bar(run, hop) for run in counted]) for hop, title in HOPS.items()
    ]
    rows.append(
        Row(
            "All of it, if it were padded float32",
            [_bar(run, PADDED, "outline ") for run in counted if run.total(PADDED) is not None],
        )
    )
    rows = [row for row in rows if row.bars]
    said = "Bytes by hop and direction. " + " ".join(_said(run) for run in counted)
    figures = [Figure("Bytes of the whole run", bars(said, rows))]
    curves = [_by_round(run) for run in counted]
    marked = span([curves], zero=True)
    if marked is not None:
        axis = horizontal((1.0, 2.0))
        last = int(max(curve.points[-1][0] for curve in curves))
        across = of_rounds(last, axis.start, axis.end)
        title = "Bytes of a round, all hops"
        drawn = panel(title, curves, across, marked, "round", bytes_text)
        figures.append(Figure(title, drawn))
    return Section("bytes", "Bytes on the wire", [Part("", words, (), figures, [_table(counted)])])


def sent(run: History) -> float | None:
    """Bytes of all hops in training; None if nothing was counted."""
    totals = [run.total(hop) for hop in HOPS]
    return None if all(it is None for it in totals) else sum(it or 0.0 for it in totals)


def _bar(run: History, hop: str, class_: str = "") -> Bar:
    total = run.total(hop) or 0.0
    text = size(total)
    return Bar(
        [(total, f"{class_}bar {svg.series_class(run.index)}")], text, f"{run.label}: {text}"
    )


def _by_round(run: History) -> Curve:
    rounds = sorted({it for hop in HOPS for it in run.measured[hop]})
    points = [
        (round_ + 1.0, sum(run.measured[hop].get(round_, 0.0) for hop in HOPS)) for round_ in rounds
    ]
    return Curve(run.index, run.label, points)


def _said(run: History) -> str:
    parts = [f"{title} {shown_size(run.total(hop))}" for hop, title in HOPS.items()]
    return f"{run.label}: {', '.join(parts)}."


def _table(runs: Sequence[History]) -> Table:
    columns = ("Run", *(title.capitalize() for title in HOPS.values()), "All hops")
    columns += ("As padded float32", "Share of it", "Evaluation, apart")
    rows: list[list[Cell | str]] = []
    for run in runs:
        total, padded = sent(run), run.total(PADDED)
        share = f"{total / padded:.1%}" if total is not None and padded else NOTHING
        rows.append(
            [
                Cell(run.label, run.index if len(runs) > 1 else None),
                *(shown_size(run.total(hop)) for hop in HOPS),
                shown_size(total),
                shown_size(padded),
                share,
                shown_size(_evaluation(run)),
            ]
        )
    return Table("Bytes by hop and direction", columns, rows, frozenset(range(1, len(columns))))


def _evaluation(run: History) -> float | None:
    counted = (run.record.summary or {}).get("bytes")
    return number(counted.get("evaluation")) if isinstance(counted, dict) else None

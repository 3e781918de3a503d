"""Each device: how its training loss went, what it trained on, how long it took."""

from collections.abc import Sequence

from markupsafe import Markup

from elsa.record.events import DeviceFinished
from elsa.report import svg
from elsa.report.axis import Axis, plain
from elsa.report.curves import Curve, span
from elsa.report.history import History
from elsa.report.numbers import fixed, number, shown_duration
from elsa.report.parts import Figure, Part, Section, Table

DRAWN = 24
WORDS = (
    "Training loss of each device, edge round by edge round; the grey line is the mean of all. "
    "▲ marks devices that the simulator poisoned in some round."
)
WIDTH, HEIGHT = 170.0, 96.0
LEFT, RIGHT, TOP, BOTTOM = 30.0, 8.0, 8.0, 20.0


def section(runs: Sequence[History]) -> Section:
    """A small panel a device, on one scale over all runs."""
    curves = {run.index: _curves(run) for run in runs}
    marked = span(curves.values(), zero=True)
    if marked is None:
        return Section("devices", "Devices")
    parts: list[Part] = []
    for run in runs:
        own = curves[run.index]
        if not own:
            continue
        words = [] if parts else [WORDS]
        shown = own
        if len(own) > DRAWN:
            shown = sorted(own, key=lambda it: -it.points[-1][1])[:DRAWN]
            words.append(
                f"Of {len(own)} devices, the {DRAWN} whose loss is highest at the end are drawn."
            )
        mean = _mean(own)
        figures = [
            Figure(marked_name(run, it.name), _panel(it, mean, marked), small=True) for it in shown
        ]
        title = run.label if len(runs) > 1 else ""
        parts.append(Part(title, words, (), figures, [_table(run)]))
    return Section("devices", "Devices", parts)


def marked_name(run: History, device: str) -> str:
    """A device's name, marked if the simulator poisoned it."""
    return f"▲ {device}" if device in run.poisoned else device


def _curves(run: History) -> list[Curve]:
    """A curve a device, over edge rounds counted through from 1."""
    places = {
        it: place for place, it in enumerate(sorted({k for d in run.devices.values() for k in d}))
    }
    made = []
    for name, rounds in sorted(run.devices.items()):
        points = [
            (places[key] + 1.0, loss)
            for key, event in sorted(rounds.items())
            if (loss := number(event.loss)) is not None
        ]
        if points:
            made.append(Curve(run.index, name, points))
    return made


def _mean(curves: Sequence[Curve]) -> list[svg.Point]:
    by_place: dict[float, list[float]] = {}
    for curve in curves:
        for x, y in curve.points:
            by_place.setdefault(x, []).append(y)
    return [(x, sum(ys) / len(ys)) for x, ys in sorted(by_place.items())]


def _panel(curve: Curve, mean: Sequence[svg.Point], marked: tuple[float, ...]) -> Markup:
    up = Axis((marked[0], marked[-1]), HEIGHT - BOTTOM, TOP, plain(marked))
    last = max(mean[-1][0], 2.0)
    across = Axis((1.0, last), LEFT, WIDTH - RIGHT, lambda value: f"{value:.0f}")
    children = []
    for tick in up.ticks:
        y = up.at(tick)
        children.append(svg.line([(LEFT, y), (WIDTH - RIGHT, y)], "grid"))
        children.append(svg.words(up.text(tick), LEFT - 4, y + 4, "tick", "end"))
    for tick, anchor in zip(across.ticks, ("start", "end"), strict=True):
        children.append(svg.words(across.text(tick), across.at(tick), HEIGHT - 4, "tick", anchor))
    children.append(svg.line([(across.at(x), up.at(y)) for x, y in mean], "mean"))
    places = [(across.at(x), up.at(y)) for x, y in curve.points]
    children.append(svg.line(places, f"line {svg.series_class(curve.index)}"))
    end = curve.points[-1][1]
    children.append(svg.mark(*places[-1], curve.index, f"{end:.3f}", radius=3.0))
    said = f"{curve.name}: training loss from {curve.points[0][1]:.3g} to {end:.3g}"
    return svg.drawing(WIDTH, HEIGHT, said, children)


def _table(run: History) -> Table:
    rows = []
    for name, rounds in sorted(run.devices.items()):
        reported = [event for _, event in sorted(rounds.items())]
        rows.append(
            [
                marked_name(run, name),
                run.edges.get(name, ""),
                str(len(reported)),
                fixed(sum(number(it.samples) or 0.0 for it in reported), 0),
                fixed(number(reported[0].loss)),
                fixed(number(reported[-1].loss)),
                shown_duration(_seconds(reported)),
            ]
        )
    titles = ("Device", "Edge", "Edge rounds", "Rows trained on", "First loss", "Last loss")
    columns = (*titles, "Simulated, an edge round")
    return Table("Every device", columns, rows, frozenset(range(2, len(columns))), folded=True)


def _seconds(reported: Sequence[DeviceFinished]) -> float | None:
    seconds = [it for event in reported if (it := number(event.simulated_seconds)) is not None]
    return sum(seconds) / len(seconds) if seconds else None

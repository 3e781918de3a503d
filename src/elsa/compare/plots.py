"""The results as SVG: learning curves, and accuracy of every run."""

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from elsa.compare.numbers import spread
from elsa.compare.outcome import Outcome, Point
from elsa.compare.results import Results, title_of

COLOURS = ("#0060a0", "#c44a00", "#007a5a", "#8a7d00", "#b0538f", "#2a9fd6", "#6e6e6e", "#000000")
"""After Okabe and Ito, darkened so that lines can be told apart on white."""
STYLES = ("-", "--", ":")
MARKERS = "osD^vPXd"
_STYLE: Any = {"svg.hashsalt": "elsa", "font.size": 9, "font.family": "DejaVu Sans"}


def draw_curves(path: Path, results: Results) -> None:
    """Test accuracy over rounds, simulated seconds and bytes: mean over seeds, and their range."""
    axes_of: tuple[tuple[str, Callable[[Point], float]], ...] = (
        ("rounds: local steps and an average", lambda it: it.rounds),
        ("simulated seconds", lambda it: it.seconds),
        ("MB sent, all hops (log)", lambda it: it.bytes / 1e6),
    )
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(13, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        for place, (label, along) in enumerate(axes_of):
            axes = figure.add_subplot(1, 3, place + 1)
            _curves(axes, results, along, logarithmic=place == 2)
            axes.set_xlabel(label)
            axes.axhline(results.target, color="#aaaaaa", lw=0.8, zorder=1)
        figure.axes[0].set_ylabel("test accuracy")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(path, metadata={"Date": None}, facecolor="white")


def draw_accuracy(path: Path, results: Results) -> None:
    """Test and worst-device accuracy: a point a run, a bar at the mean."""
    count = len(results.rows)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 1.4 + 0.42 * count), layout="constrained")
        FigureCanvasAgg(figure)
        scores: tuple[tuple[str, Callable[[Outcome], float | None]], ...] = (
            ("test accuracy", lambda it: it.accuracy),
            ("accuracy of the worst device", lambda it: it.worst_device),
        )
        for place, (label, score) in enumerate(scores):
            axes = figure.add_subplot(1, 2, place + 1)
            for level, row in enumerate(results.rows):
                own = [score(it) for it in results.outcomes if it.method == row.method]
                held, middle = [it for it in own if it is not None], spread(own)
                colour = COLOURS[level % len(COLOURS)]
                axes.plot(held, [level] * len(held), MARKERS[level % 8], color=colour, ms=5)
                if middle:
                    axes.plot([middle.mean] * 2, [level - 0.3, level + 0.3], color=colour, lw=2)
            axes.set_yticks(range(count), [title_of(it.method) for it in results.rows])
            axes.invert_yaxis()
            axes.set_xlabel(label)
            _plain(axes)
            if place:
                axes.set_yticklabels([])
        figure.savefig(path, metadata={"Date": None}, facecolor="white")


def _curves(
    axes: Axes, results: Results, along: Callable[[Point], float], *, logarithmic: bool
) -> None:
    styles = cycle(range(len(results.rows) or 1))
    for row, number in zip(results.rows, styles, strict=False):
        own = [it for it in results.outcomes if it.method == row.method and it.curve]
        steps = min((len(it.curve) for it in own), default=0)
        if not steps:
            continue
        x = [_mean([along(it.curve[step]) for it in own]) for step in range(steps)]
        if logarithmic and min(x) <= 0:
            continue
        scores = [[it.curve[step].accuracy for it in own] for step in range(steps)]
        colour = COLOURS[number % len(COLOURS)]
        style = STYLES[number // len(COLOURS) % len(STYLES)]
        marker = MARKERS[number % 8]
        y, title = [_mean(each) for each in scores], title_of(row.method)
        axes.plot(x, y, style, color=colour, lw=1.3, marker=marker, ms=3.5, label=title)
        low, high = [min(each) for each in scores], [max(each) for each in scores]
        axes.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
    if logarithmic:
        axes.set_xscale("log")
        for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            axis(lambda value, _: f"{value:,g}")
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.grid(visible=True, color="#eeeeee", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

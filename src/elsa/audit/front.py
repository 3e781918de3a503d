"""The plot of what defences cost against what they keep: accuracy lost, tokens read all the same.

A defence is as good as the best attack on it, whatever that attack knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from elsa.audit.row import Row

_STYLE: Any = {"svg.hashsalt": "elsa", "font.size": 9, "font.family": "DejaVu Sans"}


@dataclass(frozen=True)
class Point:
    """A defence.

    Attributes:
        name: for people.
        read, low, high: share of tokens that the best attack reads, with its interval.
        lost: accuracy lost against no defence, in points.
    """

    name: str
    read: float
    low: float
    high: float
    lost: float


def best_reader(rows: Sequence[Row]) -> Row | None:
    """The attack that recovers most tokens; None if none was made."""
    found = [row for row in rows if (row.about, row.measure) == ("tokens", "recovery")]
    return max(found, key=lambda row: row.score.value, default=None)


def draw_front(path: Path, points: Sequence[Point], title: str = "") -> None:
    """Write the plot as SVG; down and to the left is better."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for place, point in enumerate(sorted(points, key=lambda it: it.lost)):
            axes.plot([point.low, point.high], [point.lost] * 2, color="#0060a0", lw=1)
            axes.plot(point.read, point.lost, "o", color="#0060a0", ms=4.5)
            axes.annotate(
                point.name,
                (point.read, point.lost),
                xytext=(5, 4 if place % 2 else -9),
                textcoords="offset points",
                fontsize=7.5,
            )
        axes.set_xlim(0, 1.15)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel("share of tokens that the best attack reads")
        axes.set_ylabel("accuracy lost, points")
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(visible=True, color="#eeeeee", lw=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None}, facecolor="white")

"""The plot of the wire study: accuracy against total bytes, one point an arm."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

FAMILIES = {
    "uncompressed": ("#000000", "s"),
    "no split": ("#6e6e6e", "D"),
    "plain integers": ("#2a9fd6", "^"),
    "rotated integers": ("#0060a0", "o"),
    "water-filled bits": ("#8a7d00", "v"),
    "temporal + fill": ("#007a5a", "o"),
    "top-k": ("#c98500", "P"),
    "count sketch": ("#c44a00", "X"),
    "SS-OP": ("#b0538f", "d"),
}
"""Colour and marker; after Okabe and Ito, darkened so that text in them can be read on white."""
LINES = ("rotated integers", "water-filled bits", "temporal + fill", "top-k")
"""Families that are one codec at several rates; their points are joined."""

Across = Literal["left", "center", "right"]
Along = Literal["bottom", "center", "top"]

_TICKS = (
    0.1,
    0.3,
    0.5,
    0.7,
    0.8,
    0.85,
    0.9,
    0.92,
    0.94,
    0.95,
    0.96,
    0.97,
    0.98,
    0.985,
    0.99,
    0.995,
)
_SIZE = 7.5
_STYLE: Any = {"svg.hashsalt": "elsa", "font.size": 9, "font.family": "DejaVu Sans"}


@dataclass(frozen=True)
class Point:
    """An arm on one data set: mean, smallest and largest accuracy, and total bytes."""

    name: str
    family: str
    megabytes: float
    mean: float
    low: float
    high: float


def draw(
    path: Path,
    title: str,
    points: Sequence[Point],
    references: Sequence[str],
    padded_megabytes: float | None,
) -> None:
    """Write the plot as SVG.

    Args:
        path: where.
        title: above it.
        points: the arms.
        references: names of those whose accuracy is also drawn across.
        padded_megabytes: the exchange as padded float32, of which 3 % is marked; None marks none.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 6.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        goal = 0.03 * padded_megabytes if padded_megabytes else None
        _axes(axes, points, goal)
        axes.set_title(title, loc="left", fontsize=11)
        for point in points:
            if point.name in references:
                colour = FAMILIES[point.family][0]
                axes.axhline(point.mean, color=colour, lw=0.8, ls=(0, (2, 3)), zorder=1)
        if goal:
            axes.axvline(goal, color="#aaaaaa", lw=0.8, zorder=1)
            axes.annotate(
                "3 % of padded float32",
                (goal, 0.01),
                xycoords=("data", "axes fraction"),
                xytext=(3, 0),
                textcoords="offset points",
                fontsize=_SIZE,
                color="#6e6e6e",
            )
        _points(axes, points)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        _label(axes, points, references)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None}, facecolor="white")


def _axes(axes: Axes, points: Sequence[Point], goal: float | None) -> None:
    """Bytes by their logarithm, accuracy by that of the error: both ends can be read."""
    axes.set_xscale("log")
    axes.set_yscale("function", functions=(_spread, lambda y: 1 - 10.0**-y))
    low, high = min(it.low for it in points), max(it.high for it in points)
    bottom, top = 1 - min(1.15 * (1 - low), 0.995), 1 - max(0.6 * (1 - high), 0.0008)
    axes.set_ylim(bottom, top)
    axes.set_yticks([tick for tick in _TICKS if bottom <= tick <= top], minor=False)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    sizes = [it.megabytes for it in points] + ([goal] if goal else [])
    small, large = min(sizes), max(sizes)
    axes.set_xlim(small / 1.5, large * 2.2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel("bytes over the whole run, all hops and tiers, MB (log)")
    axes.set_ylabel("test accuracy (axis by the logarithm of the error)")
    axes.grid(visible=True, which="major", color="#eeeeee", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _spread(accuracy: Any) -> Any:
    return -np.log10(np.maximum(1 - np.asarray(accuracy), 1e-6))


def _points(axes: Axes, points: Sequence[Point]) -> None:
    for family, (colour, marker) in FAMILIES.items():
        own = sorted((it for it in points if it.family == family), key=lambda it: it.megabytes)
        if not own:
            continue
        axes.errorbar(
            [it.megabytes for it in own],
            [it.mean for it in own],
            yerr=[[it.mean - it.low for it in own], [it.high - it.mean for it in own]],
            fmt=marker,
            ls="-" if family in LINES else "",
            color=colour,
            ecolor=colour,
            lw=0.8,
            elinewidth=0.9,
            ms=5.5,
            label=family,
        )
    axes.legend(loc="lower right", frameon=False, fontsize=8)


def _label(axes: Axes, points: Sequence[Point], references: Sequence[str]) -> None:
    """Put each name near its point, where it covers the least of other names and points."""
    figure: Any = axes.figure
    renderer = figure.canvas.get_renderer()
    scale = figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    legend = axes.get_legend()
    taken = [legend.get_window_extent(renderer)] if legend else []
    for it in points:
        x, y = axes.transData.transform((it.megabytes, it.mean))
        half = 4 * scale
        taken.append(Bbox([[x - half, y - half], [x + half, y + half]]))
        (_, down), (_, up) = axes.transData.transform([(1, it.low), (1, it.high)])
        taken.append(Bbox([[x - 1, down], [x + 1, up]]))
        if it.name in references:
            taken.append(Bbox([[frame.x0, y - 0.5], [frame.x1, y + 0.5]]))
    offsets = [
        (distance * np.cos(angle), distance * np.sin(angle))
        for distance, angle in product((8, 14, 22, 32, 44, 58, 74), np.arange(12) * np.pi / 6)
    ]
    for it in sorted(points, key=lambda it: -it.mean):
        text = _name(axes, it, (0, 0), leader=False)
        size = text.get_window_extent(renderer)
        text.remove()
        spot = axes.transData.transform((it.megabytes, it.mean))
        boxes = [_box(spot, np.multiply(offset, scale), size) for offset in offsets]
        covered = [_covered(box, taken, frame) for box in boxes]
        best = int(np.argmin(covered))  # the first, and so the nearest, of equals
        taken.append(boxes[best])
        _name(axes, it, offsets[best], leader=best >= 24)


def _box(spot: Any, offset: Any, size: Bbox) -> Bbox:
    """Where a name of this size comes to lie, in pixels, with a margin."""
    across, along = _sides(offset)
    x = spot[0] + offset[0] - size.width * {"left": 0, "center": 0.5, "right": 1}[across]
    y = spot[1] + offset[1] - size.height * {"bottom": 0, "center": 0.5, "top": 1}[along]
    return Bbox.from_bounds(x, y, size.width, size.height).padded(1.5)


def _covered(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Square pixels that it covers of others, and a high price outside of the axes."""
    outside = max(0.0, frame.x0 - box.x0, box.x1 - frame.x1, frame.y0 - box.y0, box.y1 - frame.y1)
    shared = (Bbox.intersection(box, each) for each in taken)
    return float(1000 * outside + sum(both.width * both.height for both in shared if both))


def _sides(offset: Any) -> tuple[Across, Along]:
    right, up = offset
    return (
        "left" if right > 2 else "right" if right < -2 else "center",
        "bottom" if up > 4 else "top" if up < -4 else "center",
    )


def _name(axes: Axes, point: Point, offset: tuple[float, float], *, leader: bool) -> Any:
    colour = FAMILIES[point.family][0]
    across, along = _sides(offset)
    line = {"arrowstyle": "-", "color": colour, "lw": 0.4, "shrinkB": 3}
    return axes.annotate(
        point.name,
        (point.megabytes, point.mean),
        offset,
        textcoords="offset points",
        ha=across,
        va=along,
        fontsize=_SIZE,
        color=colour,
        arrowprops=line if leader else None,
    )

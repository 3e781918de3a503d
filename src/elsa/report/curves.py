"""Curves over rounds, bytes or seconds: small panels that share their scales."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from elsa.report import svg
from elsa.report.axis import Axis, plain, ticks

WIDTH, HEIGHT = 360.0, 224.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 14.0, 10.0, 40.0
MARKED = 40
"""Points of a curve, at most, that get a mark each; more get one at the end."""


@dataclass(frozen=True)
class Curve:
    """The curve of a run.

    Attributes:
        index: of the run, which has a colour, a dash and a mark.
        name: of the run.
        points: by rising x, all finite.
    """

    index: int
    name: str
    points: Sequence[svg.Point]


def span(
    groups: Iterable[Sequence[Curve]], zero: bool = False, most: float | None = None
) -> tuple[float, ...] | None:
    """Ticks for the values of all curves of some panels; None if there are none.

    Args:
        groups: the curves of each panel.
        zero: whether the axis begins at 0.
        most: what no value can exceed; the axis ends there at the latest.
    """
    values = [y for curves in groups for curve in curves for _, y in curve.points]
    if not values:
        return None
    low, high = min(values), max(values)
    if low == high:  # a single value lies in the middle of a tenth of itself
        around = abs(low) / 20 or 0.5
        low, high = low - around, high + around
    marked = ticks(min(low, 0.0) if zero else low, max(high, 0.0) if zero else high)
    return tuple(it for it in marked if most is None or it <= most + 1e-9 or it <= high)


def panel(
    title: str,
    curves: Sequence[Curve],
    across: Axis,
    marked: tuple[float, ...],
    bottom: str,
    text: Callable[[float], str] | None = None,
) -> Markup:
    """A panel of curves.

    Args:
        title: what is drawn, for those who do not see it.
        curves: one a run.
        across: the horizontal axis.
        marked: ticks of the vertical axis.
        bottom: title of the horizontal axis.
        text: labels of the vertical axis; plain numbers if left out.
    """
    up = Axis(marked, HEIGHT - BOTTOM, TOP, text or plain(marked))
    children = [*frame(up, across, bottom)]
    for curve in curves:
        places = [(across.at(x), up.at(y)) for x, y in curve.points]
        children.append(svg.line(places, f"line {svg.dash_class(curve.index)}"))
        chosen = places if len(places) <= MARKED else places[-1:]
        values = curve.points if len(places) <= MARKED else curve.points[-1:]
        for (x, y), (at, value) in zip(chosen, values, strict=True):
            hint = f"{curve.name}, {bottom} {across.text(at)}: {value:.4g}"
            children.append(svg.mark(x, y, curve.index, hint))
    return svg.drawing(WIDTH, HEIGHT, title, children)


def horizontal(marked: tuple[float, ...], text: Callable[[float], str] | None = None) -> Axis:
    """A horizontal axis with these ticks."""
    return Axis(marked, LEFT, WIDTH - RIGHT, text or plain(marked))


def frame(up: Axis, across: Axis, bottom: str) -> list[svg.Element]:
    """Grid lines, labels of ticks and the title of the horizontal axis."""
    made = []
    for tick in up.ticks:
        y = up.at(tick)
        made.append(svg.line([(across.start, y), (across.end, y)], "grid"))
        made.append(svg.words(up.text(tick), across.start - 6, y + 4, "tick", "end"))
    made.append(svg.line([(across.start, up.start), (across.end, up.start)], "axis"))
    for tick in across.ticks:
        x = across.at(tick)
        made.append(svg.line([(x, up.start), (x, up.start + 4)], "axis"))
        made.append(svg.words(across.text(tick), x, up.start + 17, "tick", "middle"))
    middle = (across.start + across.end) / 2
    return [*made, svg.words(bottom, middle, up.start + 34, "label", "middle")]

"""Bars from zero, and values with their intervals; a row has its name above it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from elsa.report import svg
from elsa.report.axis import Axis, plain, ticks

WIDTH = 360.0
LEFT, RIGHT = 2.0, 78.0
"""Right of the longest bar there is room for its number."""


@dataclass(frozen=True)
class Bar:
    """A bar of pieces, one behind the other.

    Attributes:
        pieces: length and class of each.
        text: what stands behind it.
        hint: what is said when it is pointed at.
    """

    pieces: Sequence[tuple[float, str]]
    text: str
    hint: str = ""

    @property
    def length(self) -> float:
        """Of all pieces."""
        return sum(value for value, _ in self.pieces)


@dataclass(frozen=True)
class Row:
    """A named group of bars."""

    name: str
    bars: Sequence[Bar]


def bars(title: str, rows: Sequence[Row], longest: float | None = None) -> Markup:
    """Bars from zero.

    Args:
        title: what is drawn, for those who do not see it.
        rows: from top to bottom.
        longest: what fills the width; the longest bar if left out.
    """
    most = longest or max((bar.length for row in rows for bar in row.bars), default=0.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / most
    children, y = [], 0.0
    for row in rows:
        children.append(svg.words(row.name, LEFT, y + 13, "label"))
        y += 19
        top = y
        for bar in row.bars:
            x = LEFT
            for value, class_ in bar.pieces:
                width = value * scale
                children.append(svg.box(x, y, width, 14, class_, bar.hint))
                x += width
            children.append(svg.words(bar.text, x + 6, y + 11.5, "value"))
            y += 18
        children.append(svg.line([(LEFT, top - 2), (LEFT, y - 2)], "axis"))
        y += 9
    return svg.drawing(WIDTH, y, title, children)


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Attributes:
        index: of the series it belongs to.
        value, low, high: the value and the ends of its interval.
        hint: what is said when it is pointed at.
    """

    index: int
    value: float
    low: float
    high: float
    hint: str = ""


def intervals(
    title: str,
    rows: Sequence[tuple[str, Sequence[Estimate], float | None]],
    bottom: str,
    text: Callable[[float], str] | None = None,
) -> Markup:
    """Values between 0 and 1 with intervals, a row each; a tick where chance lies.

    Args:
        title: what is drawn, for those who do not see it.
        rows: name, values, chance.
        bottom: title of the axis.
        text: labels of the axis; plain numbers if left out.
    """
    marked = ticks(0.0, 1.0)
    axis = Axis(marked, LEFT + 8, WIDTH - 14, text or plain(marked))
    children: list[svg.Element] = []
    y = 4.0
    for name, estimates, chance in rows:
        children.append(svg.words(name, LEFT, y + 12, "label"))
        y += 20
        top = y
        for it in estimates:
            middle = y + 8
            children.append(svg.line([(axis.start, middle), (axis.end, middle)], "grid"))
            ends = [(axis.at(it.low), middle), (axis.at(it.high), middle)]
            children.append(svg.line(ends, f"whisker {svg.series_class(it.index)}"))
            children.append(svg.mark(axis.at(it.value), middle, it.index, it.hint))
            y += 16
        if chance is not None:
            children.append(svg.line([(axis.at(chance), top), (axis.at(chance), y)], "chance"))
        y += 8
    for tick in marked:
        children.append(svg.line([(axis.at(tick), y), (axis.at(tick), y + 4)], "axis"))
        children.append(svg.words(axis.text(tick), axis.at(tick), y + 17, "tick", "middle"))
    children.append(svg.line([(axis.start, y), (axis.end, y)], "axis"))
    middle = (axis.start + axis.end) / 2
    children.append(svg.words(bottom, middle, y + 34, "label", "middle"))
    return svg.drawing(WIDTH, y + 40, title, children)

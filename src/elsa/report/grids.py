"""Grids of cells: trust by device and edge round, blocks of the model by holder; and maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from elsa.report import svg

WIDTH = 360.0
LEVELS = 5
"""Shades of a grid of shares."""


def shade(value: float) -> int:
    """The shade of a share from 0 to 1: 0 is the faintest."""
    return min(max(int(value * LEVELS), 0), LEVELS - 1)


def heat(
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Mapping[int, tuple[float, bool, str]]]],
    bottom: str,
) -> Markup:
    """A grid of shares, some of them crossed out.

    Args:
        title: what is drawn, for those who do not see it.
        columns: their labels.
        rows: name, and by column a share from 0 to 1, whether it is crossed out, and what is said
            when it is pointed at.
        bottom: title of the columns.
    """
    longest = max((len(name) for name, _ in rows), default=0)
    left = min(14 + 6.6 * min(longest, 18), 130.0)
    width = min((WIDTH - left - 4) / max(len(columns), 1), 22.0)
    height = 16.0 if len(rows) <= 40 else 10.0
    children: list[svg.Element] = []
    for number, (name, cells) in enumerate(rows):
        y = number * height
        shown = name if len(name) <= 18 else f"{name[:17]}…"
        children.append(svg.words(shown, left - 6, y + height - 4, "tick", "end"))
        for column, (value, crossed, hint) in cells.items():
            x, inner = left + column * width, max(width - 1.5, 0.5)
            children.append(svg.box(x, y, inner, height - 1.5, f"h{shade(value)}", hint))
            if crossed:
                size = min(inner, height) / 3.2
                middle, centre = x + inner / 2, y + (height - 1.5) / 2
                for down in (-1, 1):
                    ends = [
                        (middle - size, centre - down * size),
                        (middle + size, centre + down * size),
                    ]
                    children.append(svg.line(ends, f"cross c{shade(value)}"))
    y = len(rows) * height
    every = max(1, -(-len(columns) * 24 // int(WIDTH - left)))
    for column in range(0, len(columns), every):
        x = left + (column + 0.5) * width
        children.append(svg.words(columns[column], x, y + 13, "tick", "middle"))
    children.append(svg.words(bottom, left + width * len(columns) / 2, y + 30, "label", "middle"))
    return svg.drawing(WIDTH, y + 36, title, children)


def blocks(title: str, rows: Sequence[tuple[str, tuple[int, int, int], str]]) -> Markup:
    """The blocks of a model, a row a split: those of the device filled, the edge's in outline.

    Args:
        title: what is drawn, for those who do not see it.
        rows: name, (p, o, q), and what stands behind the row.
    """
    children: list[svg.Element] = []
    total = max((sum(split) for _, split, _ in rows), default=1)
    width = min((WIDTH - 2) / total, 34.0)
    for number, (name, split, text) in enumerate(rows):
        y = number * 46.0
        children.append(svg.words(name, 1, y + 13, "label"))
        children.append(svg.words(text, WIDTH - 1, y + 13, "tick", "end"))
        place = 0
        for count, class_ in zip(split, ("own", "edges", "own"), strict=True):
            for _ in range(count):
                children.append(svg.box(1 + place * width, y + 19, width - 2, 16, class_))
                place += 1
    return svg.drawing(WIDTH, 46.0 * len(rows) - 4, title, children)


@dataclass(frozen=True)
class Dot:
    """A point of a map: where it lies, its series, its label, what is said when pointed at."""

    x: float
    y: float
    index: int
    label: str
    hint: str


def plane(title: str, dots: Sequence[Dot], reach: float) -> Markup:
    """A map, alike in both directions; labels where the dots are few, moved off each other.

    Args:
        title: what is drawn, for those who do not see it.
        dots: its points.
        reach: half the width of the largest of all maps on this scale.
    """
    side, edge = WIDTH, 26.0
    scale = (side / 2 - edge) / (reach or 1.0)
    across, up = middle([(dot.x, dot.y) for dot in dots])
    children = [svg.box(0.5, 0.5, side - 1, side - 1, "plane")]
    places = [
        (side / 2 + (dot.x - across) * scale, side / 2 - (dot.y - up) * scale) for dot in dots
    ]
    few = len(dots) <= LABELLED
    for (x, y), dot in zip(places, dots, strict=True):
        children.append(svg.mark(x, y, dot.index, dot.hint, radius=5.0 if few else 3.5))
    inside = _Box(0, 0, side, side)
    taken = [_Box(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for (x, y), dot in zip(places, dots, strict=True) if few else ():
        width = 7.0 * len(dot.label)
        free = min(
            (
                _Box(
                    x + dx - (width if dx < 0 else 0),
                    y + dy - 9,
                    x + dx + (width if dx > 0 else 0),
                    y + dy,
                )
                for dx, dy in BESIDE
            ),
            key=lambda it: sum(it.shared(other) for other in taken) - it.shared(inside),
        )
        taken.append(free)
        children.append(svg.words(dot.label, free.left, free.bottom, "tick"))
    return svg.drawing(side, side, title, children)


def middle(points: Sequence[svg.Point]) -> svg.Point:
    """The middle of the smallest upright rectangle around points."""
    if not points:
        return 0.0, 0.0
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2


def half_width(points: Sequence[svg.Point]) -> float:
    """Largest distance in x or y from their middle."""
    across, up = middle(points)
    return max((max(abs(x - across), abs(y - up)) for x, y in points), default=0.0)


LABELLED = 40
BESIDE = ((8, 4), (-8, 4), (6, -6), (-6, -6), (6, 15), (-6, 15), (14, -12), (-14, -12), (14, 21))
"""Where a label may begin or end, from its dot."""


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: "_Box") -> float:
        """Area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

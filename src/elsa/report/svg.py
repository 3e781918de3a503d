"""Drawings as SVG elements; text is escaped by the library that writes them.

Looks come from classes alone (`templates/style.css`): a page that forbids inline styles shows them.
Lengths are in units of the drawing, about a pixel each on a screen.
"""

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

from markupsafe import Markup

from elsa.report.numbers import clean

Element = ElementTree.Element
Point = tuple[float, float]
MARKS = 5
"""Shapes of marks, and dashes of lines, before they begin anew."""
COLOURS = 7
LETTERS = 52
"""Colours of series before they begin anew."""


def series_class(index: int) -> str:
    """The class of series `index`: its colour."""
    return f"s{index % COLOURS}"


def dash_class(index: int) -> str:
    """The class of a line of series `index`: its colour and dash; no two of 35 are alike."""
    return f"{series_class(index)} d{(index + index // COLOURS) % MARKS}"


def node(tag: str, children: Iterable[Element] = (), **attributes: object) -> Element:
    """An element; `class_` is the attribute class, and _ stands for - in names."""
    made = Element(tag)
    for name, value in attributes.items():
        key = name.rstrip("_").replace("_", "-")
        made.set(key, _length(value) if isinstance(value, float) else clean(value))
    made.extend(children)
    return made


def words(text: object, x: float, y: float, class_: str = "", anchor: str = "start") -> Element:
    """A line of text, cut where a drawing ends; `anchor` is "start", "middle" or "end"."""
    made = node("text", x=float(x), y=float(y), class_=class_, text_anchor=anchor)
    made.text = clean(text, LETTERS)
    return made


def line(points: Sequence[Point], class_: str) -> Element:
    """A line through points."""
    through = " ".join(f"{_length(x)},{_length(y)}" for x, y in points)
    return node("polyline", points=through, class_=class_)


def box(x: float, y: float, width: float, height: float, class_: str, hint: str = "") -> Element:
    """A rectangle; `hint` is shown when it is pointed at."""
    made = node(
        "rect",
        x=float(x),
        y=float(y),
        width=float(max(width, 0.0)),
        height=float(max(height, 0.0)),
        class_=class_,
    )
    return _hinted(made, hint)


def mark(x: float, y: float, index: int, hint: str = "", radius: float = 4.0) -> Element:
    """The mark of series `index` at a point: a shape in its colour."""
    shape = (index + index // COLOURS) % MARKS
    class_ = f"mark {series_class(index)}"
    if shape == 0:
        made = node("circle", cx=float(x), cy=float(y), r=radius, class_=class_)
    else:
        corners = _CORNERS[shape - 1]
        through = " ".join(
            f"{_length(x + radius * across)},{_length(y + radius * down)}"
            for across, down in corners
        )
        made = node("polygon", points=through, class_=class_)
    return _hinted(made, hint)


_CORNERS: tuple[tuple[Point, ...], ...] = (
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),  # square
    ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),  # triangle
    ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),  # diamond
    ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),  # triangle, pointing down
)


def drawing(width: float, height: float, title: str, children: Iterable[Element]) -> Markup:
    """A whole drawing as markup, with words for those who do not see it."""
    view = f"0 0 {_length(width)} {_length(height)}"
    root = node("svg", children, viewBox=view, role="img", aria_label=title)
    # Escaped by ElementTree; `clean` has taken what it would let through.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def swatch(index: int) -> Markup:
    """The key of a series in a legend: its line and its mark."""
    root = node(
        "svg",
        [line([(0, 7), (28, 7)], f"line {dash_class(index)}"), mark(14, 7, index)],
        viewBox="0 0 28 14",
        class_="swatch",
        aria_hidden="true",
    )
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def patch(class_: str) -> Markup:
    """The key of an area: a square that looks like it."""
    root = node(
        "svg", [box(1, 1, 12, 12, class_)], viewBox="0 0 14 14", class_="patch", aria_hidden="true"
    )
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def point(index: int) -> Markup:
    """The key of a mark alone."""
    root = node("svg", [mark(7, 7, index)], viewBox="0 0 14 14", class_="patch", aria_hidden="true")
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _hinted(made: Element, hint: str) -> Element:
    if hint:
        title = node("title")
        title.text = clean(hint)
        made.append(title)
    return made


def _length(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")

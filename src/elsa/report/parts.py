"""What a page is made of: sections of drawings, tables and words."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from elsa.report.numbers import clean


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it says.
        series: number of the run whose colour and mark stand before it; None for none.
        strong: whether it stands out.
    """

    text: str
    series: int | None = None
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading.

    Attributes:
        caption: what it holds.
        columns: their titles.
        rows: cells, or their text.
        numbers: which columns are numbers, aligned at the right.
        folded: whether it is opened by hand; it is printed all the same.
    """

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell | str]]
    numbers: frozenset[int] = frozenset()
    folded: bool = False

    def cells(self) -> list[list[Cell]]:
        """The rows, cleaned of what cannot be shown."""
        made = [[it if isinstance(it, Cell) else Cell(it) for it in row] for row in self.rows]
        return [[Cell(clean(it.text), it.series, it.strong) for it in row] for row in made]


@dataclass(frozen=True)
class Figure:
    """A drawing with what it shows above it.

    Attributes:
        title: what is drawn, with its unit.
        drawing: the SVG.
        small: whether many of its kind stand side by side.
    """

    title: str
    drawing: Markup
    small: bool = False


@dataclass(frozen=True)
class Part:
    """A piece of a section: words, then drawings side by side, then tables.

    Attributes:
        title: heading below that of the section; empty for none.
        words: paragraphs.
        key: what colours and marks mean: a swatch and its name.
        figures: drawings of one kind, on the same scales.
        tables: the numbers behind them.
    """

    title: str = ""
    words: Sequence[str] = ()
    key: Sequence[tuple[Markup, str]] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: that links to it use; letters and hyphens.
        title: its heading.
        parts: what it holds.
    """

    name: str
    title: str
    parts: Sequence[Part] = field(default_factory=tuple)

"""Numbers as people read them: sizes, times, shares; and text that is safe to show."""

import math
import unicodedata

NOTHING = "–"  # noqa: RUF001 - an en dash, for a cell without a number


def size(count: float) -> str:
    """A number of bytes for people, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def number(value: object) -> float | None:
    """The value as a finite float; None of anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def fixed(value: float | None, digits: int = 3) -> str:
    """A number with so many digits after the point, or a dash."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def shown_size(value: float | None) -> str:
    """A number of bytes, or a dash."""
    return NOTHING if value is None else size(value)


def shown_duration(value: float | None) -> str:
    """A time, or a dash."""
    return NOTHING if value is None else duration(value)


def clean(text: object, longest: int = 400) -> str:
    """Text that may stand in a page: what is invisible, or turns reading order, is made visible.

    Control and formatting characters and half surrogate pairs become a replacement character; what
    is longer than `longest` ends in an ellipsis. Markup is not touched: that is escaped where the
    text is put.
    """
    found = str(text)
    if len(found) > longest:
        found = found[: longest - 1] + "…"
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) in {"Cc", "Cf", "Cs"} else char
        for char in found.replace("\n", " ").replace("\t", " ")
    )

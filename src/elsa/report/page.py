"""One HTML page of one run or several, complete in itself.

Everything that comes from a run is text until it is escaped: by the template engine in HTML, by
ElementTree in drawings. The page has no script, and its Content-Security-Policy lets it load
nothing and apply no style but its own, whose hash it names.
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from elsa.record.atomic import write_atomically
from elsa.record.reading import RunRecord, read_run
from elsa.report import svg
from elsa.report.history import History, histories
from elsa.report.numbers import clean
from elsa.report.parts import Section
from elsa.report.sections import (
    clusters,
    devices,
    happenings,
    leaks,
    learning,
    memory,
    outcome,
    settings,
    traffic,
)

NAME = "report.html"
PARAGRAPH = 4000
"""Longest text of a page, in characters."""
SECTIONS: tuple[Callable[[Sequence[History]], Section], ...] = (
    outcome.section,
    learning.section,
    devices.section,
    traffic.section,
    memory.section,
    clusters.section,
    leaks.section,
    settings.section,
    happenings.section,
)


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of some runs and return where it lies.

    Args:
        runs: run directories, at least one; those that are unfinished or damaged in part are shown
            as far as they can be read, and the page says so.
        out: the file; None takes report.html, in the run directory if there is one run, else in
            the current folder. What is there is replaced.

    Raises:
        RunError: one of them is no run directory, or its manifest cannot be read, or the page
            cannot be written.
    """
    records = [read_run(run) for run in runs]
    path = out or (Path(runs[0]) / NAME if len(runs) == 1 else Path(NAME))
    write_atomically(path, page(records).encode())
    return path


def page(records: Sequence[RunRecord]) -> str:
    """The page of some runs as text; equal records, equal pages."""
    runs = histories(records)
    template, style = _template()
    shown = [made for section in SECTIONS if (made := section(runs)).parts]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return template.render(
        title=", ".join(run.label for run in runs),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'",
        style=Markup(style),
        runs=runs,
        several=len(runs) > 1,
        tiles=outcome.tiles(runs[0]) if len(runs) == 1 else [],
        states=[said for run in runs if (said := outcome.state(run))],
        notes=[note for run in runs for note in run.record.notes],
        sections=shown,
        swatch=svg.swatch,
    )


@cache
def _template() -> tuple[Template, str]:
    loader = PackageLoader("elsa.report")
    engine = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda it: it if isinstance(it, Markup) else clean(it, PARAGRAPH),
    )
    style, _, _ = loader.get_source(engine, "style.css")
    return engine.get_template("page.html"), f"\n{style}"

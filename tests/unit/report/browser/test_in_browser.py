"""The page in a real browser: quiet console, nothing loaded, all sizes and media, by keyboard."""

import base64
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from elsa.record.reading import RunRecord
from elsa.report.page import write_report

Story = Callable[..., RunRecord]
HOSTILE = '<img src=x onerror="window.hit=1"></svg></title></style><script>window.hit=1</script>\''
LONG = "averylongnamewithoutanyspaceinit" * 4


@pytest.fixture
def written(story: Story, tmp_path: Path) -> Path:
    """A page of two runs, one of them unfinished and with names as long as they come."""
    runs = [story("one"), story("two", word=LONG, done=2)]
    return write_report([run.path for run in runs], tmp_path / "page.html")


@pytest.mark.parametrize("media", ["", "print"], ids=("screen", "print"))
@pytest.mark.parametrize("width", [320, 768, 1440])
@pytest.mark.parametrize("dark", [False, True], ids=("light", "dark"))
def test_page_is_quiet_loads_nothing_and_fits(
    browser: Any, written: Path, width: int, dark: bool, media: str
) -> None:
    tab = browser.open(written, width, dark, media)
    assert tab.complaints() == []
    if not media:  # paper is scaled to fit
        wide = "[...document.querySelectorAll('body *')].filter(it => !it.closest('.scroll'))"
        far = f"{wide}.filter(it => it.getBoundingClientRect().right > {width})"
        assert tab.ask(f"{far}.map(it => it.outerHTML.slice(0, 120))") == []
        assert tab.ask("document.documentElement.scrollWidth") <= width
    paper = tab.ask("getComputedStyle(document.body).backgroundColor")
    assert paper == (
        "rgb(255, 255, 255)" if media else "rgb(20, 24, 27)" if dark else "rgb(252, 252, 251)"
    )


def test_every_drawing_shows_its_colours_and_nothing_overflows_it(
    browser: Any, written: Path
) -> None:
    tab = browser.open(written)
    plain = "getComputedStyle(it)"
    black = tab.ask(
        f"[...document.querySelectorAll('figure svg .line, figure svg .grid')]"
        f".filter(it => {plain}.stroke === 'none' || {plain}.fill !== 'none').length"
    )
    filled = tab.ask(
        f"[...document.querySelectorAll('figure svg rect, figure svg .mark')]"
        f".filter(it => {plain}.fill === 'rgb(0, 0, 0)').length"
    )
    assert (black, filled) == (0, 0)
    outside = tab.ask(
        """[...document.querySelectorAll('figure svg')].flatMap(drawing => {
            const frame = drawing.getBoundingClientRect()
            return [...drawing.querySelectorAll('rect, .mark, .line')].filter(it => {
                const box = it.getBoundingClientRect()
                return box.left < frame.left - 3 || box.right > frame.right + 3
                    || box.top < frame.top - 3 || box.bottom > frame.bottom + 3
            })
        }).length"""
    )
    assert outside == 0


def test_text_of_a_run_stays_text(browser: Any, story: Story, tmp_path: Path) -> None:
    counts = []
    for name, word in (("plain", "x"), ("hostile", HOSTILE)):
        record = story(name, word=word)
        tab = browser.open(write_report([record.path], tmp_path / f"{name}.html"))
        assert tab.complaints() == []
        assert tab.ask("window.hit") is None
        counts.append(tab.ask("document.querySelectorAll('*').length"))
    assert counts[0] == counts[1]
    assert HOSTILE in tab.ask("document.body.textContent")


def test_keyboard_reaches_everything_and_shows_where_it_is(browser: Any, written: Path) -> None:
    tab = browser.open(written)
    reached = []
    for _ in range(80):
        tab.press("Tab")
        reached.append(
            tab.ask("document.activeElement.className || document.activeElement.tagName")
        )
        if len(reached) > 1 and reached[-1] in {"skip", "BODY"}:
            break
        seen = tab.ask("getComputedStyle(document.activeElement).outlineStyle")
        assert seen != "none", reached[-1]
    assert reached[0] == "skip"
    assert {"A", "SUMMARY", "scroll"} <= set(reached)
    tab.ask("document.querySelector('summary').focus()")
    tab.press("Enter", "\r")
    assert tab.ask("document.querySelector('details').open") is True


def test_paper_has_the_folded_tables_too(browser: Any, written: Path) -> None:
    seen = "document.querySelector('details table').checkVisibility({contentVisibilityAuto: true})"
    assert browser.open(written).ask(seen) is False
    tab = browser.open(written, media="print")
    assert tab.ask(seen) is True
    assert tab.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    paper = tab.call("Page.printToPDF")["data"]
    assert base64.b64decode(paper).startswith(b"%PDF")


def test_screen_readers_are_told_what_is_drawn(browser: Any, written: Path) -> None:
    tab = browser.open(written)
    nodes = [it for it in tab.call("Accessibility.getFullAXTree")["nodes"] if not it.get("ignored")]
    named: dict[str, list[str]] = {}
    for it in nodes:
        named.setdefault(it["role"]["value"], []).append(it.get("name", {}).get("value", ""))
    drawings = named["image"]
    assert len(drawings) > 20
    assert all(len(name) > 10 for name in drawings)
    assert all(named["table"])
    assert named["main"]
    assert named["navigation"] == ["Sections"]
    levels = tab.ask("[...document.querySelectorAll('h1,h2,h3')].map(it => +it.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))

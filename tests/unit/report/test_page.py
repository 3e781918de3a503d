"""The page as text: nothing of a run is markup in it, and everything of a run is on it."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elsa.errors import RunError
from elsa.record import events
from elsa.record.reading import RunRecord, read_run
from elsa.report.numbers import clean
from elsa.report.page import page, write_report

Story = Callable[..., RunRecord]
MARKUP = (
    "<script>",
    "</script>",
    "</style>",
    "<b x=y>",
    "-->",
    "<!--",
    "&lt;",
    "&#60;",
    "]]>",
    "'",
    '"',
)
MARKUP += (
    "</title>",
    "<svg/onload=x>",
    "{{ 7 }}",
    "{% x %}",
    "javascript:",
    "\x00",
    "\ud800",
    "\u202e",
)
HOSTILE = st.lists(st.sampled_from(MARKUP) | st.text(max_size=5), max_size=6).map("".join)


class Reader(HTMLParser):
    """Counts the elements of a page with their attributes, and keeps its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.values: Counter[tuple[str, str | None]] = Counter()
        self.words: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag, tuple(sorted(name for name, _ in attrs))] += 1
        held = dict(attrs)
        self.values.update(
            (name, value) for name, value in attrs if name in ("class", "id", "href")
        )
        self.links += [
            value or "" for name, value in attrs if name in ("href", "src", "xlink:href")
        ]
        self.words += [held[name] or "" for name in ("aria-label",) if name in held]

    def handle_comment(self, data: str) -> None:
        self.elements["comment", ()] += 1

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.words)


def retold(record: RunRecord, word: str) -> RunRecord:
    """The record with `word` in place of every "@"."""

    def turn(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("@", word)
        if isinstance(value, dict):
            return {turn(key): turn(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(turn, value))
        if hasattr(value, "__dataclass_fields__"):
            return replace(
                value, **{name: turn(getattr(value, name)) for name in value.__dataclass_fields__}
            )
        return value

    return turn(replace(record, notes=("@note",), path=record.path.with_name("@run")))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None
)
@given(HOSTILE)
def test_no_text_of_a_run_becomes_markup(story: Story, tmp_path: Path, word: str) -> None:
    told = tmp_path / "run"
    record = read_run(told) if told.exists() else story(word="@")
    plain, hostile = Reader(page([retold(record, "x")])), Reader(page([retold(record, word)]))
    assert hostile.elements == plain.elements
    assert hostile.values == plain.values
    assert plain.text.count("xno answer") == hostile.text.count(clean(f"{word}no answer"))


def test_everything_of_a_run_is_on_its_page(story: Story) -> None:
    text = Reader(page([story()])).text
    for word in (
        *("Training loss", "Test accuracy", "Accuracy, worst device", "0.800", "Test perplexity"),
        *("Epsilon a label, so far", "14.500"),
        *("device to edge", "264.0 MB", "As padded float32", "1.1 GB", "20.0 MB"),
        *(
            "Whole model on the device",
            "p 1, o 4, q 1: 2 devices, 50%",
            "Reckoned by the cost model",
        ),
        *("After round 4", "edge-0", "no edge", "against the others", "▲ device-0"),
        *("arm: 0.900", "0.900 (0.800 to 1.000)", "public text"),
        *("federation.rounds", "mine.csv", "unknown.key", "processor", "SHA-256 ab"),
        *("no answer (at edge-0)", "edge-0 to edge-1: closer", "poisoned by the simulator: 4"),
    ):
        assert word in text, word


def test_default_settings_are_not_listed(story: Story) -> None:
    text = page([story()])
    table = text[text.index("Settings; ") : text.index("Provenance")]
    assert re.findall(r'<th scope="row">([\w.]+)</th>', table) == [
        "data.path",
        "federation.rounds",
        "unknown.key",
    ]


def test_several_runs_share_scales_and_a_legend(story: Story) -> None:
    both = [story("one"), story("two", rounds=8)]
    text = page(both)
    assert text.count("<svg") > page(both[:1]).count("<svg")
    assert re.search(r'aria-label="Legend".*one.*two.*</aside>', text, re.DOTALL)
    assert (
        len(re.findall(r'<th scope="row"><svg[^>]*class="swatch".*?</svg> (one|two)</th>', text))
        >= 6
    )
    # A round lies at the same place for both: the longer run decides.
    panel = re.search(r'<svg[^>]*aria-label="Training loss\..*?</svg>', text, re.DOTALL)
    assert panel
    lines = re.findall(r'<polyline points="([^"]*)" class="line s\d', panel[0])
    assert len(lines) == 2
    assert lines[1].startswith(lines[0])


def test_runs_of_one_name_are_told_apart(story: Story) -> None:
    record = story()
    assert "run (2)" in page([record, record])


def test_unfinished_run_says_how_far_it_is(story: Story) -> None:
    text = Reader(page([story(rounds=6, done=2)])).text
    assert "has not ended: 2 of 6 rounds are done. Go on with: elsa resume" in text
    assert "Test accuracy" in text


def test_run_without_a_round_has_a_page(story: Story) -> None:
    text = Reader(page([story(rounds=6, done=0)])).text
    assert "No round has ended yet" in text
    assert "0 of 6 rounds" in text


def test_run_that_was_never_evaluated_says_so(story: Story) -> None:
    record = story()
    evaluated = events.Evaluated | events.TaskEvaluated
    kept = tuple(event for event in record.events if not isinstance(event, evaluated))
    text = Reader(page([replace(record, events=kept)])).text
    assert "were not evaluated yet" in text
    assert "Training loss" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400], ids=("nan", "inf", "huge"))
def test_numbers_that_cannot_be_drawn_are_left_out(story: Story, value: Any) -> None:
    record = story()
    odd = [
        replace(event, loss=value, round=event.round if value != 10**400 else value)
        for event in record.events
        if isinstance(event, events.RoundFinished | events.DeviceFinished | events.Evaluated)
    ]
    text = page([replace(record, events=(*record.events, *odd))])
    lengths = re.findall(r' (?:points|x|y|cx|cy|r|width|height)="([^"]*)"', text)
    assert len(lengths) > 100
    assert all(re.fullmatch(r"[-\d., ]*", each) for each in lengths)
    assert not re.search(r">-?(nan|inf)<", text)


def test_page_loads_nothing_and_names_its_own_style_alone(story: Story) -> None:
    text = page([story()])
    read = Reader(text)
    assert all(link.startswith("#") for link in read.links)
    assert not {tag for tag, _ in read.elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "form",
    }
    assert not any(
        name.startswith("on") or name == "style" for _, names in read.elements for name in names
    )
    assert "url(" not in text
    assert "default-src &#39;none&#39;; style-src &#39;sha256-" in text
    anchors = {value for name, value in read.values if name == "id"}
    assert {link[1:] for link in read.links} <= anchors


def test_equal_records_give_equal_pages(story: Story) -> None:
    record = story()
    assert page([record]) == page([read_run(record.path)])


def test_page_is_written_where_it_belongs(story: Story, tmp_path: Path, monkeypatch: Any) -> None:
    one, two = story("one").path, story("two").path
    monkeypatch.chdir(tmp_path)
    assert write_report([one]) == one / "report.html"
    assert write_report([one, two]) == Path("report.html")
    assert (
        write_report([one], tmp_path / "own.html").read_bytes()
        == (one / "report.html").read_bytes()
    )


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run directory"):
        write_report([tmp_path])


def test_a_page_comes_without_heavy_packages(story: Story) -> None:
    heavy = "{'torch', 'pandas', 'matplotlib', 'transformers', 'scipy'} & set(sys.modules)"
    script = f"import sys; import elsa.report.page; assert not {heavy}, {heavy}"
    subprocess.run((sys.executable, "-c", script), check=True, timeout=100)


def blocks_of_style() -> list[dict[str, str]]:
    """Colours by name: in light, in dark, in print."""
    folder = Path(sys.modules["elsa.report.page"].__file__ or "").parent
    style = (folder / "templates" / "style.css").read_text("utf-8")
    roots = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", root)) for root in roots]


def contrast(one: str, other: str) -> float:
    """Ratio of luminances, 1 to 21 (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [it / 12.92 if it <= 0.04045 else ((it + 0.055) / 1.055) ** 2.4 for it in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("medium", range(3), ids=("light", "dark", "print"))
def test_colours_can_be_seen(medium: int) -> None:
    colours = blocks_of_style()[medium]
    for ink in ("ink", "soft", "link"):
        assert contrast(colours[ink], colours["paper"]) >= 4.5, ink
    assert contrast(colours["notice-ink"], colours["notice"]) >= 4.5
    for series in range(7):
        assert contrast(colours[f"s{series}"], colours["paper"]) >= 3, series
    shades = [colours[f"h{level}"] for level in range(5)]
    ratios = [contrast(shade, shades[0]) for shade in shades]
    assert ratios == sorted(ratios)
    for one, other in combinations([colours[f"p{piece}"] for piece in range(3)], 2):
        assert contrast(one, other) >= 1.5

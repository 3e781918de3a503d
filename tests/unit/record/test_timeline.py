"""A timeline as its readers take it."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsa.errors import RunError
from elsa.record.timeline import TimelineFile

GROUPS = {"cloud": ["cloud"], "devices": ["b", "a"]}
MOMENTS = st.lists(st.floats(0, 1e5, allow_subnormal=False), min_size=2, max_size=30).map(sorted)


def events(path: Path, kind: str) -> list[dict[str, Any]]:
    table = json.loads(path.read_text(encoding="utf-8"))
    return [event for event in table["traceEvents"] if event["ph"] == kind]


def test_rows_have_a_name_and_a_place_and_events_are_in_them(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with TimelineFile(path, GROUPS) as file:
        file.span("a", "top", 1.5, 2.0)
        file.mark("cloud", "average", 2.25)
        assert not path.exists()
    named = {
        (event["name"], event["pid"], event["tid"]): next(iter(event["args"].values()))
        for event in events(path, "M")
    }
    assert named["process_name", 2, 0] == "devices"
    assert named["process_sort_index", 2, 0] == 2
    assert named["thread_name", 2, 2] == "a"
    assert named["thread_sort_index", 2, 2] == 2
    assert named["thread_name", 2, 1] == "b"
    assert named["thread_name", 1, 1] == "cloud"
    (span,), (mark,) = events(path, "X"), events(path, "i")
    assert span == {"ph": "X", "name": "top", "pid": 2, "tid": 2, "ts": 1.5e6, "dur": 5e5}
    assert (mark["name"], mark["pid"], mark["tid"], mark["ts"]) == ("average", 1, 1, 2.25e6)


@settings(deadline=None)
@given(MOMENTS)
def test_what_follows_in_seconds_never_overlaps_in_nanoseconds(
    tmp_path_factory: pytest.TempPathFactory, moments: list[float]
) -> None:
    path = tmp_path_factory.mktemp("timeline") / "trace.json"
    with TimelineFile(path, GROUPS) as file:
        for start, end in itertools.pairwise(moments):
            file.span("a", "work", start, end)
    spans = [(round(it["ts"] * 1e3), round(it["dur"] * 1e3)) for it in events(path, "X")]
    assert all(lasts > 0 for _, lasts in spans)
    assert all(begins + lasts <= then for (begins, lasts), (then, _) in itertools.pairwise(spans))
    if spans:
        assert sum(spans[-1]) == round(moments[-1] * 1e9)


def test_without_events_it_is_json_and_an_error_leaves_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with TimelineFile(path, {}):
        pass
    assert events(path, "X") == []
    with pytest.raises(ZeroDivisionError), TimelineFile(path, GROUPS) as file:
        file.span("a", "work", 0.0, 1.0)
        raise ZeroDivisionError
    assert len(events(path, "X")) == 1
    assert [it.name for it in tmp_path.iterdir()] == ["trace.json"]


def test_a_place_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        TimelineFile(tmp_path / "nowhere" / "trace.json", GROUPS)

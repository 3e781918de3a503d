"""A run's timeline, as `--trace` writes it: each party does one thing at a time, and it ends when
the run does."""

import json
from collections import defaultdict
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest

from elsa.engine.run import resume, run
from elsa.errors import Interrupted
from elsa.record.directory import read_summary
from elsa.record.log import read_events

Traces = Callable[[Path], dict[str, Any]]
Spans = dict[str, list[tuple[int, int, str]]]


def spans_of(path: Path) -> Spans:
    """By row, begin and end in nanoseconds, and what it was, in order."""
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    rows = {
        (it["pid"], it["tid"]): it["args"]["name"] for it in events if it["name"] == "thread_name"
    }
    found: Spans = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            start, lasts = round(event["ts"] * 1e3), round(event["dur"] * 1e3)
            found[rows[event["pid"], event["tid"]]].append((start, start + lasts, event["name"]))
    return {row: sorted(spans) for row, spans in found.items()}


def _at_once(rows: list[list[tuple[int, int, str]]]) -> int:
    """How many of these rows are busy at once, at most."""
    edges = sorted(
        (at, way) for own in rows for start, end, _ in own for at, way in ((start, 1), (end, -1))
    )
    return max(accumulate(way for _, way in edges))


def checked(spans: Spans, summary: Any, in_flight: int = 1) -> None:
    """The laws of every timeline of a whole run."""
    for row, own in spans.items():
        assert all(end <= start for (_, end, _), (start, _, _) in pairwise(own)), row
    devices = [row for row in spans if f"{row} link up" in spans]
    at_once = [
        _at_once([spans[f"{it}{end}"] for end in ("", " link up", " link down")]) for it in devices
    ]
    # Alone in flight, a batch has its device or one direction of its link busy; several have more.
    assert (max(at_once) == 1) == (in_flight == 1)
    last = max(end for own in spans.values() for _, end, _ in own)
    assert last == round(summary["simulated_seconds"] * 1e9)


LATE = (
    "federation.devices=5",
    "partition.min_rows=4",
    "deploy.device_quorum=0.5",
    "network.slow=0.4",
)
MODES = {
    "plain": (),
    "in flight": ("train.in_flight=4", "network.spread=1.0"),
    "shared": ("federation.trunk=shared", "network.spread=1.0"),
    "whole": ("split.layout=whole", "network.drift=0.3"),
    "dropped": (*LATE, "deploy.straggler_seconds=0.1"),
    "buffered": (*LATE, "aggregate.late=buffer"),
    "watched": ("cluster.trust=true", "cluster.probe_count=16", "cluster.dimensions=4"),
}


@pytest.mark.parametrize("mode", MODES)
def test_laws_hold_and_nothing_else_changes(
    mode: str, make: Any, traces: Traces, tmp_path: Path
) -> None:
    config, file = make(*MODES[mode], "evaluate.every=2"), tmp_path / "trace.json"
    drawn = run(config, out=tmp_path / "drawn", trace=file)
    plain = run(config, out=tmp_path / "plain")
    assert traces(drawn.directory) == traces(plain.directory)
    spans = spans_of(file)
    checked(spans, drawn.summary, config.train.in_flight)
    # What a device did in an edge round ends when the log says so.
    devices = [it.event for it in read_events(drawn.directory / "events.jsonl")]
    rounds = [it for it in devices if it.kind == "device_finished"]
    names = {it.device for it in rounds}
    assert names <= spans.keys()
    if mode == "plain":
        assert [it[2] for it in spans["device-0 link up"]].count("h1") == 8
        assert [it[2] for it in spans["device-0"]].count("top") == 8
        assert [it[2] for it in spans["edge-0"]].count("trunk backward device-0") == 8


def test_a_resumed_run_draws_the_rounds_that_are_left(make: Any, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.json" for name in ("whole", "first", "second")]
    whole = run(make(), out=tmp_path / "whole", trace=files[0])
    heard: list[str] = []
    with pytest.raises(Interrupted):
        run(
            make(),
            out=tmp_path / "run",
            listen=lambda event: heard.append(event.kind),
            stop=lambda: heard.count("checkpoint_saved") == 2,
            trace=files[1],
        )
    resume(tmp_path / "run", trace=files[2])
    assert read_summary(tmp_path / "run") is not None
    all_spans, first, second = map(spans_of, files)
    for row, own in all_spans.items():
        assert first.get(row, []) + second.get(row, []) == own
    checked(all_spans, whole.summary)

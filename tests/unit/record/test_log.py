import dataclasses
import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsa.errors import RunError
from elsa.record import events
from elsa.record.events import DeviceFinished, Evaluated, Event, RunFinished
from elsa.record.lines import read_lines
from elsa.record.log import Entry, EventLog, read_events

KINDS = get_args(Event)
finite = st.floats(allow_nan=False, allow_infinity=False)
summaries = st.dictionaries(st.text(), st.integers() | finite | st.none() | st.text())


def log_of(path: Path, *logged: Event) -> Path:
    log = EventLog(path, clock=lambda: 12.5)
    for event in logged:
        log.append(event)
    log.close()
    return path


def test_every_event_of_the_module_can_be_logged_and_is_told_apart() -> None:
    classes = [each for each in vars(events).values() if dataclasses.is_dataclass(each)]
    assert set(classes) == set(KINDS)
    assert len({each.kind for each in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(data=st.data())
def test_a_logged_event_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, kind: type[Any], data: st.DataObject
) -> None:
    special = {"summary": summaries} if kind is RunFinished else {}
    event = data.draw(st.builds(kind, **special))
    path = tmp_path_factory.getbasetemp() / f"{kind.__name__}.jsonl"
    path.unlink(missing_ok=True)
    log_of(path, event)
    assert repr(read_events(path)) == repr([Entry(12.5, event)])
    assert read_events(path)[0].event.kind == kind.kind


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_diverged_loss_is_logged_as_plain_json_and_read_back(tmp_path: Path, loss: float) -> None:
    path = log_of(tmp_path / "events.jsonl", Evaluated(0, loss=loss))

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    json.loads(path.read_bytes(), parse_constant=no_constant)
    event = read_events(path)[0].event
    assert isinstance(event, Evaluated)
    assert repr(event.loss) == repr(loss)


def test_a_line_is_flat_json_with_time_and_kind_first(tmp_path: Path) -> None:
    event = DeviceFinished(1, 0, "edge-0", "device-3", 160, 0.5, 2.25)
    line = json.loads(read_lines(log_of(tmp_path / "events.jsonl", event))[0])
    assert list(line)[:3] == ["time", "kind", "round"]
    assert (line["kind"], line["device"]) == ("device_finished", "device-3")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\0\0\0",
        b"[]",
        b"3",
        b'{"time": 1}',
        b'{"time": 1, "kind": "other", "round": 1}',
        b'{"kind": "interrupted", "round": 1}',
        b'{"time": 1, "kind": "interrupted"}',
    ],
)
def test_a_whole_line_that_is_no_event_is_an_error_with_its_number(
    tmp_path: Path, line: bytes
) -> None:
    path = log_of(tmp_path / "events.jsonl", Evaluated(0, loss=1.0))
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(RunError, match=r"events.jsonl, line 2: is no event"):
        read_events(path)

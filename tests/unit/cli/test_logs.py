"""JSON lines: one object a record, with who and why; and lines for people."""

import json
import logging
import warnings
from typing import Any

import pytest

from elsa.cli.logs import set_up, tell
from elsa.record import events


@pytest.fixture(autouse=True)
def quiet() -> Any:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before, level
    logging.captureWarnings(False)


def lines(capsys: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines_hold_who_and_why_and_survive_any_text(capsys: Any) -> None:
    say = set_up("json", "edge-0")
    log = logging.getLogger("elsa.wire.rpc.server")
    say("edge-0 listens\nat two lines")
    log.warning("%s refused: %s", "d", "why", extra={"peer": "d", "reason": 'why "ü"'})
    try:
        raise ValueError("deep")
    except ValueError:
        log.exception("failed")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a library warns", stacklevel=1)
    said, refused, failed, warned = lines(capsys)
    assert "a library warns" in warned["message"]
    assert said["message"] == "edge-0 listens\nat two lines"
    assert {it["party"] for it in (said, refused, failed)} == {"edge-0"}
    assert (refused["peer"], refused["reason"], refused["level"]) == ("d", 'why "ü"', "warning")
    assert "ValueError: deep" in failed["exception"]
    assert said["time"].endswith("+00:00")


def test_event_is_told_with_its_fields(capsys: Any) -> None:
    set_up("json", "cloud")
    tell(events.DeviceLost(3, "edge-0", "device-1", "away"))
    (told,) = lines(capsys)
    assert told["message"] == "device lost"
    assert told["event"]["device"] == "device-1"
    assert told["event"]["round"] == 3


def test_lines_for_people_are_bare_when_said_and_dated_when_logged(capsys: Any) -> None:
    say = set_up("human", "edge-0")
    say("edge-0 listens")
    logging.getLogger("elsa").info("a stream ended")
    first, second = capsys.readouterr().err.splitlines()
    assert first == "edge-0 listens"
    assert second.endswith("INFO a stream ended")

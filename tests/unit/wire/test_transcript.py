"""The recorder: the very frames, of whom and when it was told to, and no more than the limit."""

from pathlib import Path

import pytest

from elsa.core.codec import Packet
from elsa.errors import RunError
from elsa.wire.inprocess import InProcess
from elsa.wire.layers import Tap
from elsa.wire.messages import (
    Accepted,
    Activations,
    Gradients,
    LocalPlan,
    Message,
    Ready,
    RoundOrder,
    Update,
)
from elsa.wire.serde import encode
from elsa.wire.transcript import Recorder, recordings
from elsa.wire.transport import Layer, Link

PLENTY = 10**6
PACKET = Packet("any", "float32", (1, 1), bytes(4))


def answer(peer: str, request: Message) -> Message:
    match request:
        case Ready(round=round_, edge_round=edge_round):
            return LocalPlan(round_, edge_round, 1, 7, {})
        case Update():
            return Accepted()
        case _:
            return request


def session(recorder: Layer, device: str = "d", round_: int = 0, *more: Layer) -> list[Message]:
    said = [
        Ready(round_, 0, 1, 1),
        Activations(0, True, (1,), PACKET),
        Gradients(0, PACKET),
        Update(round_, 0, {}, 1, 1, 0.5),
    ]
    link = InProcess(answer, Link("device_edge", device, "e"), [recorder, *more])
    for message in said:
        link.call(message)
    return said


def test_what_was_said_is_read_back_in_both_directions_and_the_bytes_are_those_of_the_wire(
    tmp_path: Path,
) -> None:
    tap = Tap()
    said = session(Recorder(tmp_path, 1, PLENTY), "d", 0, tap)
    (recording,) = recordings(tmp_path)
    assert (recording.edge, recording.device, recording.round) == ("e", "d", 0)
    heard = list(recording.messages())
    assert [message for way, message in heard if way == "up"] == said
    assert [message for way, message in heard if way == "down"] == [answer("d", m) for m in said]
    data = recording.path.read_bytes()
    assert all(passage.data in data for passage in tap.frames)
    assert len(data) == sum(9 + len(passage.data) for passage in tap.frames)


def test_only_the_rounds_and_devices_asked_for_are_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 1, PLENTY, {"d"})
    for device in ("d", "other"):
        for round_ in (0, 1):
            session(recorder, device, round_)
    assert [(it.device, it.round) for it in recordings(tmp_path)] == [("d", 0)]


def test_evaluations_and_the_cloud_are_not_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 1, PLENTY)

    def plan(peer: str, request: Message) -> Message:
        return LocalPlan(0, 0, 0, 7, {}) if isinstance(request, Ready) else request

    link = InProcess(plan, Link("device_edge", "d", "e"), [recorder])
    link.call(Ready(0, 0, 1, 1))
    link.call(Activations(0, False, (1,), PACKET))
    InProcess(lambda _, it: it, Link("edge_cloud", "e", "cloud"), [recorder]).call(
        RoundOrder(0, 1, 1, (), {})
    )
    assert recordings(tmp_path) == []


def test_an_edge_round_that_begins_again_is_recorded_anew(tmp_path: Path) -> None:
    session(Recorder(tmp_path, 1, PLENTY))
    before = recordings(tmp_path)[0].path.read_bytes()
    broken = Recorder(tmp_path, 1, PLENTY)
    link = InProcess(answer, Link("device_edge", "d", "e"), [broken])
    link.call(Ready(0, 0, 1, 1))
    assert len(recordings(tmp_path)[0].path.read_bytes()) < len(before)
    session(Recorder(tmp_path, 1, PLENTY))
    assert recordings(tmp_path)[0].path.read_bytes() == before


def test_the_limit_holds_and_what_is_cut_short_is_read_up_to_there(tmp_path: Path) -> None:
    size = len(encode(Ready(0, 0, 1, 1))) + len(encode(LocalPlan(0, 0, 1, 7, {}))) + 18
    recorder = Recorder(tmp_path, 1, size)
    session(recorder)
    assert recorder.full
    (recording,) = recordings(tmp_path)
    assert recording.path.stat().st_size == size
    assert len(list(recording.messages())) == 2


@pytest.mark.parametrize("lost", [1, 5, 12])
def test_a_record_torn_by_a_kill_ends_the_recording(tmp_path: Path, lost: int) -> None:
    session(Recorder(tmp_path, 1, PLENTY))
    (recording,) = recordings(tmp_path)
    whole = list(recording.messages())
    recording.path.write_bytes(recording.path.read_bytes()[:-lost])
    assert list(recording.messages()) == whole[: len(list(recording.messages()))]
    assert len(whole) - 2 <= len(list(recording.messages())) < len(whole)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    session(Recorder(tmp_path, 1, PLENTY))
    (recording,) = recordings(tmp_path)
    recording.path.write_bytes(b"something else entirely")
    with pytest.raises(RunError, match="no recording"):
        list(recording.messages())

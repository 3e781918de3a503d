"""An edge's end computes each request once, however often Flower brings it."""

import threading
from concurrent.futures import ThreadPoolExecutor

from elsa.engine.flower.edge import Entry
from elsa.wire.messages import Accepted, Message, Task
from elsa.wire.serde import decode, encode

ORDER = encode(Task("train", 1, 0))


def test_a_request_that_comes_again_gets_the_answer_that_is_being_computed() -> None:
    seen: list[tuple[str, Message]] = []
    begun, go_on = threading.Event(), threading.Event()

    def handler(peer: str, request: Message) -> Message:
        seen.append((peer, request))
        begun.set()
        assert go_on.wait(20)
        return Accepted()

    entry = Entry("cloud", handler, len(ORDER))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(entry.answer, {"request": "a"}, ORDER)
        assert begun.wait(20)
        again = pool.submit(entry.answer, {"request": "a"}, ORDER)
        go_on.set()
        assert first.result(20) == again.result(20) == ({}, encode(Accepted()))
    assert entry.answer({"request": "a"}, ORDER) == ({}, encode(Accepted()))
    assert seen == [("cloud", Task("train", 1, 0))]
    entry.answer({"request": "b"}, ORDER)
    assert len(seen) == 2


def test_frames_that_are_none_or_too_large_are_refused_and_the_next_is_served() -> None:
    entry = Entry("cloud", lambda peer, request: Accepted(), len(ORDER))
    head, answer = entry.answer({"request": "a"}, b"no frame")
    assert head == {} and type(decode(answer)).__name__ == "Refusal"
    head, answer = entry.answer({"request": "b"}, ORDER + b"x")
    assert "over the edge's limit" in head["failed"] and answer == b""
    assert entry.answer({"request": "c"}, ORDER) == ({}, encode(Accepted()))

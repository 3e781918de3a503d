"""Each request is computed once, however often and over however many streams it comes."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elsa.errors import ProtocolError
from elsa.wire.rpc.session import Session


@given(st.lists(st.integers(1, 4), max_size=20))
def test_every_request_is_computed_once_and_answered_as_often_as_it_comes(times: list[int]) -> None:
    session, computed = Session("device-0"), []

    def compute(data: bytes) -> bytes:
        computed.append(data)
        return b"answer to " + data

    for number, repeats in enumerate(times):
        request = str(number).encode()
        for _ in range(repeats):
            assert session.answer(number, request, compute) == b"answer to " + request
    assert computed == [str(number).encode() for number in range(len(times))]


@given(st.integers(0, 5), st.integers(-3, 9))
def test_only_the_next_request_or_the_last_one_again(done: int, number: int) -> None:
    session = Session("device-0")
    for each in range(done):
        session.answer(each, b"", lambda data: data)
    if number == done or (number == done - 1 and done):
        session.check(number)
    else:
        with pytest.raises(ProtocolError, match=f"request {number}; {done} is due"):
            session.answer(number, b"", lambda data: data)


def test_repeat_waits_for_what_is_being_computed() -> None:
    session, going, begun, computed = Session("device-0"), threading.Event(), threading.Event(), []

    def compute(data: bytes) -> bytes:
        computed.append(data)
        begun.set()
        assert going.wait(10)
        return b"answer"

    answers: list[bytes] = []

    def ask() -> None:
        answers.append(session.answer(0, b"request", compute))

    first, second = threading.Thread(target=ask), threading.Thread(target=ask)
    first.start()
    assert begun.wait(10)
    second.start()
    going.set()
    for thread in (first, second):
        thread.join(10)
    assert answers == [b"answer", b"answer"]
    assert computed == [b"request"]


def test_failed_computation_fails_its_repeats() -> None:
    session = Session("device-0")

    def compute(data: bytes) -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.answer(0, b"", compute)
    with pytest.raises(KeyboardInterrupt):
        session.answer(0, b"", lambda data: data)


def test_tokens_differ() -> None:
    assert len({Session("device-0").token for _ in range(100)}) == 100


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), max_size=12))
def test_of_a_caller_that_sends_ahead_as_many_answers_are_kept_as_it_may_lack(
    ahead: int, streams: list[tuple[int, int]]
) -> None:
    """Each stream begins with the earliest request without an answer, and breaks at some point."""
    session, computed = Session("device-0", ahead), []

    def compute(request: bytes) -> bytes:
        computed.append(request)
        return b"answer to " + request

    answered = due = 0  # by what the caller knows; and what it has not sent yet
    for sent, heard in streams:
        until = answered + min(sent, ahead)
        for number in range(answered, until):
            request = str(number).encode()
            assert session.answer(number, request, compute) == b"answer to " + request
        due = max(due, until)
        answered = min(answered + heard, until)
    assert computed == [str(number).encode() for number in range(due)]
    for number in (due - ahead - 1, due + 1):
        with pytest.raises(ProtocolError, match=f"request {number}; {due} is due"):
            session.check(number)

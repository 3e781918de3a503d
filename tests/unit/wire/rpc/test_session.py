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

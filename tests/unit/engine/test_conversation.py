"""Conversations: each to its end, or in lockstep; and one that fails is nobody else's trouble."""

from collections.abc import Callable

import pytest

from elsa.core.codec import Packet
from elsa.engine.conversation import Conversation, in_lockstep, one_by_one
from elsa.errors import CodecError, ElsaError, Interrupted, ProtocolError, WireError
from elsa.roles.exchange import Exchange
from elsa.wire.messages import Activations, Gradients, Message, Ready, Score, Update

PACKET = Packet("identity", "float32", (1, 1), b"")
SPOKEN = {Ready: "R", Activations: "A", Gradients: "G", Update: "U"}


class Line:
    """A link that writes down who asked what, and may break."""

    def __init__(self, name: str, log: list[str], breaks: str = "") -> None:
        self.name, self.log, self.breaks = name, log, breaks

    def call(self, request: Message) -> Message:
        word = self.name + SPOKEN[type(request)] + str(getattr(request, "step", ""))
        if word == self.breaks:
            raise WireError("broken")
        self.log.append(word)
        return request


def steps(count: int, closed: Callable[[], None] = lambda: None) -> Exchange[int]:
    """What a device asks in an edge round."""
    try:
        yield Ready(0, 0, 1, 1)
        for step in range(count):
            yield Activations(step, True, (1,), PACKET)
            yield Gradients(step, PACKET)
        yield Update(0, 0, {}, 1, 1, 0.0)
    finally:
        closed()
    return count


def talks(log: list[str], breaks: str = "", counts: str = "22") -> list[Conversation[int]]:
    return [
        Conversation(steps(int(count)), Line(name, log, breaks))
        for name, count in zip("ab", counts, strict=True)
    ]


def test_answers_go_in_and_the_result_comes_out() -> None:
    def exchange() -> Exchange[list[Message]]:
        first = yield Ready(0, 0, 1, 1)
        second = yield Update(0, 0, {}, 1, 1, 0.0)
        return [first, second]

    log: list[str] = []
    talk = Conversation(exchange(), Line("a", log))
    asked = []
    while not talk.over:
        asked.append(talk.advance())
    assert asked == [Ready(0, 0, 1, 1), Update(0, 0, {}, 1, 1, 0.0), None]
    assert talk.result == asked[:2]
    assert talk.error is None


def test_one_by_one_ends_each_before_the_next() -> None:
    log: list[str] = []
    both = talks(log)
    one_by_one(both, lambda: None)
    assert "".join(log) == "aRaA0aG0aA1aG1aUbRbA0bG0bA1bG1bU"
    assert [talk.result for talk in both] == [2, 2]


def test_in_lockstep_no_device_begins_a_step_before_all_have_done_the_last() -> None:
    log: list[str] = []
    both = talks(log)
    in_lockstep(both, lambda: None)
    assert "".join(log) == "aRbRaA0aG0bA0bG0aA1aG1bA1bG1aUbU"
    assert [talk.result for talk in both] == [2, 2]


def test_lockstep_lets_some_have_fewer_steps() -> None:
    log: list[str] = []
    in_lockstep(talks(log, counts="13"), lambda: None)
    assert "".join(log) == "aRbRaA0aG0bA0bG0aUbA1bG1bA2bG2bU"


@pytest.mark.parametrize("engine", [one_by_one, in_lockstep])
@pytest.mark.parametrize("breaks", ["aR", "aA0", "aG0", "aA1", "aG1", "aU"])
def test_broken_link_ends_one_and_the_others_go_on(engine: Callable, breaks: str) -> None:
    log: list[str] = []
    both = talks(log, breaks)
    engine(both, lambda: None)
    assert isinstance(both[0].error, WireError)
    assert both[0].result is None
    assert (both[1].error, both[1].result) == (None, 2)
    assert [word for word in log if word[0] == "b"] == ["bR", "bA0", "bG0", "bA1", "bG1", "bU"]


def test_failure_is_told_at_once_and_before_anybody_else_goes_on() -> None:
    log: list[str] = []
    failing = Conversation(
        steps(2), Line("a", log, "aG0"), lambda error: log.append(type(error).__name__)
    )
    other = Conversation(steps(2), Line("b", log), lambda error: log.append("never"))
    in_lockstep([failing, other], lambda: None)
    assert "".join(log) == "aRbRaA0WireErrorbA0bG0bA1bG1bU"


@pytest.mark.parametrize("error", [CodecError("NaN"), ProtocolError("odd")])
def test_exchange_that_gives_up_ends_the_same_way(error: ElsaError) -> None:
    def exchange() -> Exchange[int]:
        yield Ready(0, 0, 1, 1)
        raise error

    talk = Conversation(exchange(), Line("a", []))
    one_by_one([talk], lambda: None)
    assert talk.error is error


def test_broken_exchange_is_closed_at_once() -> None:
    ended: list[str] = []
    talk = Conversation(steps(2, lambda: ended.append("closed")), Line("a", [], "aG0"))
    while not talk.over:
        talk.advance()
    assert ended == ["closed"]


@pytest.mark.parametrize("engine", [one_by_one, in_lockstep])
def test_result_may_be_nothing(engine: Callable) -> None:
    def exchange() -> Exchange[None]:
        yield Ready(0, 0, 1, 1)

    talk = Conversation(exchange(), Line("a", []))
    engine([talk], lambda: None)
    assert talk.over
    assert (talk.result, talk.error) == (None, None)


@pytest.mark.parametrize("error", [Interrupted("stop"), RuntimeError("a bug")])
def test_a_wish_to_stop_and_a_bug_are_no_failures_of_a_device(error: Exception) -> None:
    class Odd(Line):
        def call(self, request: Message) -> Message:
            raise error

    talk = Conversation(steps(1), Odd("a", []), lambda _: pytest.fail("told"))
    with pytest.raises(type(error)):
        talk.advance()
    assert not talk.over


@pytest.mark.parametrize("engine", [one_by_one, in_lockstep])
def test_tick_comes_after_every_request_and_may_stop_everything(engine: Callable) -> None:
    log: list[str] = []
    engine(talks(log), lambda: log.append("."))
    words = [word for word in log if word != "."]
    assert len(words) == 12
    assert all(log[at + 1] == "." for at, word in enumerate(log) if word != ".")
    log.clear()

    def stop() -> None:
        if len(log) == 3:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        engine(talks(log), stop)
    assert len(log) == 3


def test_other_messages_do_not_end_a_turn() -> None:
    """In evaluation nobody waits for anybody."""

    def exchange(score: Score) -> Exchange[Score]:
        yield Activations(0, False, (1,), PACKET)
        yield Activations(1, False, (1,), PACKET)
        return score

    log: list[str] = []
    scores = [Score(0, 1, 1, 0.0), Score(0, 2, 1, 0.0)]
    both = [Conversation(exchange(it), Line(n, log)) for n, it in zip("ab", scores, strict=True)]
    in_lockstep(both, lambda: None)
    assert "".join(log) == "aA0aA1bA0bA1"
    assert [talk.result for talk in both] == scores

"""Edges are asked at once; one that hangs costs neither the others nor the next round."""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import pytest

from elsa.engine.deploy.asking import Asking
from elsa.errors import ElsaError, Interrupted, LinkError, ProtocolError, SessionError
from elsa.wire.messages import Accepted, Message, Next, Task

END = Task("end", 0, 0)


class Edge:
    """A link whose answers are what it is told to do, one after the other; then Accepted."""

    def __init__(self, *does: ElsaError | threading.Event) -> None:
        self.does = list(does)
        self.asked: list[Message] = []

    def call(self, request: Message) -> Message:
        self.asked.append(request)
        what = self.does.pop(0) if self.does else None
        if isinstance(what, threading.Event):
            assert what.wait(20)
        elif what is not None:
            raise what
        return Accepted()


Make = Callable[..., Asking]


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr("elsa.engine.deploy.asking._PAUSE", 0.01)
    made: list[Asking] = []

    def make(**edges: Edge) -> Asking:
        made.append(Asking(edges))
        return made[-1]

    yield make
    for each in made:
        each.close()


def enough(left: Collection[str], answers: Mapping[str, Any]) -> str:
    return "was too slow" if answers else ""


def test_every_edge_is_asked_and_errors_are_answers(asking: Make) -> None:
    refused = ProtocolError("no")
    cloud = asking(a=Edge(), b=Edge(refused), c=Edge())
    assert cloud.ask({"b": END, "a": END}) == {"b": refused, "a": Accepted()}
    assert cloud.ask({}) == {}


def test_edge_that_began_anew_is_asked_again_and_one_that_is_away_is_not(asking: Make) -> None:
    restarted, gone = Edge(SessionError("new"), SessionError("new")), Edge(LinkError("gone"))
    answers = asking(a=restarted, b=gone).ask({"a": END, "b": END})
    assert answers["a"] == Accepted()
    assert restarted.asked == [END] * 3
    assert isinstance(answers["b"], LinkError)
    assert gone.asked == [END]


def test_edge_that_hangs_is_left_and_not_asked_again_before_it_has_answered(asking: Make) -> None:
    hanging = threading.Event()
    slow = Edge(hanging)
    cloud = asking(a=slow, b=Edge())
    answers = cloud.ask({"a": END, "b": END}, enough)
    assert answers["b"] == Accepted()
    assert "a was too slow" in str(answers["a"])
    assert "has not answered what it was asked before" in str(cloud.ask({"a": Next()})["a"])
    hanging.set()
    answer: Any = None
    while answer != Accepted():
        answer = cloud.ask({"a": Next()})["a"]
    assert slow.asked == [END, Next()]


def test_what_a_tick_raises_ends_the_waiting(asking: Make) -> None:
    hanging = threading.Event()

    def tick() -> None:
        raise Interrupted("stop")

    with pytest.raises(Interrupted):
        asking(a=Edge(hanging)).ask({"a": END}, tick=tick)
    hanging.set()

"""Who is waited for, how long, and who may say what; the edge behind it is a list of calls."""

import threading
from collections.abc import Callable, Iterator
from time import sleep
from typing import Any

import pytest

from elsa.config.schema import Deploy
from elsa.engine.deploy import rounds as module
from elsa.engine.deploy.rounds import CLOUD, EdgeRounds
from elsa.errors import ConfigError, ProtocolError
from elsa.wire.messages import (
    Accepted,
    EdgeScores,
    EdgeUpdate,
    EvaluationOrder,
    Message,
    Next,
    Ready,
    Register,
    RoundOrder,
    Score,
    Task,
    Update,
    Welcome,
)

SHORT = Deploy(answer_seconds=0.4, reconnect_seconds=0.4, round_seconds=30)
LONG = Deploy(answer_seconds=60, reconnect_seconds=60, round_seconds=60)
ORDER = RoundOrder(3, 2, 1, ("d0", "d1"), {})
REGISTER = Register({"a": "b"})
UPDATE = Update(3, 0, {}, 1, 1, 0.0)


class Edge:
    """Stands in for `roles.edge.Edge`: notes what it is told, and that one thread tells it."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.threads: set[str] = set()
        self.name = "edge-0"

    def _note(self, *what: Any) -> None:
        self.threads.add(threading.current_thread().name)
        self.calls.append(what if len(what) > 1 else what[0])

    def open(self, order: Any) -> None:
        self._note("open")
        self._order = order

    def close_edge_round(self) -> None:
        self._note("average")

    def close(self) -> Any:
        self._note("close")
        if isinstance(self._order, EvaluationOrder):
            return EdgeScores(self._order.round, ())
        return EdgeUpdate(self._order.round, {}, 1.0, ())

    def handle(self, peer: str, request: Message) -> Message:
        self._note(peer, type(request).__name__)
        return Accepted()

    def lose(self, peer: str, reason: str) -> None:
        self._note("lose", peer, reason.partition(":")[0])


class World:
    def __init__(self, patience: Deploy) -> None:
        self.edge = Edge()
        self.rounds = EdgeRounds(self.edge, ["d0", "d1"], self._welcome, patience)  # type: ignore[arg-type]
        self.answer: list[Message | BaseException] = []
        self._threads: list[threading.Thread] = []

    def _welcome(self, peer: str, request: Register) -> Welcome:
        if not request.terms:
            raise ConfigError(f"{peer} differs")
        return Welcome({})

    def order(self, order: Message = ORDER) -> threading.Thread:
        """Carry out an order, as the cloud's stream does."""

        def ask() -> None:
            try:
                self.answer.append(self.rounds.handle(CLOUD, order))
            except ProtocolError as error:
                self.answer.append(error)

        thread = threading.Thread(target=ask, name="cloud")
        thread.start()
        self._threads.append(thread)
        return thread

    def task(self, peer: str) -> Task:
        """A device's next task that is one."""
        while True:
            task = self.rounds.handle(peer, Next())
            assert isinstance(task, Task)
            if task.what != "wait":
                return task

    def close(self) -> None:
        self.rounds.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD", 0.05)


@pytest.fixture
def world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(patience: Deploy = LONG, *known: str) -> World:
        made.append(World(patience))
        for peer in known:
            made[-1].rounds.handle(peer, REGISTER)
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_order_is_carried_out_edge_round_by_edge_round(world: Callable[..., World]) -> None:
    here = world(LONG, "d0", "d1")
    cloud = here.order()
    for edge_round in (0, 1):
        for peer in ("d1", "d0"):
            assert here.task(peer) == Task("train", 3, edge_round)
            here.rounds.handle(peer, UPDATE)
    cloud.join(10)
    assert here.answer == [EdgeUpdate(3, {}, 1.0, ())]
    updates = [("d1", "Update"), ("d0", "Update")]
    assert here.edge.calls == ["open", *updates, "average", *updates, "average", "close"]
    assert len(here.edge.threads) == 1


def test_task_is_given_once(world: Callable[..., World]) -> None:
    here = world(LONG, "d0", "d1")
    here.order()
    assert here.task("d0").what == "train"
    assert here.rounds.handle("d0", Next()) == Task("wait", 0, 0)


def test_evaluation_is_one_task_and_ends_with_scores(world: Callable[..., World]) -> None:
    here = world(LONG, "d0")
    cloud = here.order(EvaluationOrder(3, ("d0",), {}))
    assert here.task("d0") == Task("evaluate", 3, 0)
    here.rounds.handle("d0", Score(3, 1, 1, 0.0))
    cloud.join(10)
    assert here.answer == [EdgeScores(3, ())]


def test_device_that_never_comes_or_falls_silent_is_left_out(world: Callable[..., World]) -> None:
    here = world(SHORT, "d0")  # d1 never registers
    cloud = here.order()
    assert here.task("d0").what == "train"  # and never says anything again
    cloud.join(20)
    assert isinstance(here.answer[0], EdgeUpdate)
    lost = [call for call in here.edge.calls if call[0] == "lose"]
    assert sorted(lost) == [("lose", "d0", "LinkError"), ("lose", "d1", "LinkError")]
    assert here.edge.calls.count("average") == 2  # at once: nobody is left to wait for


def test_device_whose_stream_broke_has_time_to_come_back(world: Callable[..., World]) -> None:
    here = world(SHORT, "d0")
    cloud = here.order(RoundOrder(3, 1, 1, ("d0",), {}))
    here.task("d0")
    here.rounds.left("d0")
    sleep(0.2)
    here.rounds.back("d0")
    here.rounds.handle("d0", Ready(3, 0, 1, 1))
    here.rounds.handle("d0", UPDATE)
    cloud.join(10)
    assert not [call for call in here.edge.calls if call[0] == "lose"]


def test_device_that_begins_anew_loses_its_task(world: Callable[..., World]) -> None:
    here = world(LONG, "d0", "d1")
    here.order()
    here.task("d0")
    here.rounds.began("d0")
    assert ("lose", "d0", "LinkError") in here.edge.calls
    with pytest.raises(ProtocolError, match="must send Register first"):
        here.rounds.handle("d0", Next())
    here.rounds.handle("d0", REGISTER)
    assert here.rounds.handle("d0", Next()) == Task("wait", 0, 0)


def test_refused_device_is_left_out_once(world: Callable[..., World]) -> None:
    here = world(LONG, "d0", "d1")
    here.order()
    here.task("d0")
    here.rounds.lose("d0", "CodecError: NaN")
    here.rounds.lose("d0", "CodecError: NaN")
    assert here.edge.calls.count(("lose", "d0", "CodecError")) == 1


def test_new_order_takes_the_place_of_the_old_one(world: Callable[..., World]) -> None:
    here = world(LONG, "d0", "d1")
    first = here.order()
    here.task("d0")
    second = here.order(EvaluationOrder(4, ("d0",), {}))
    first.join(10)
    assert isinstance(here.answer[0], ProtocolError)
    assert here.task("d0") == Task("evaluate", 4, 0)
    here.rounds.handle("d0", Score(4, 1, 1, 0.0))
    second.join(10)
    assert here.answer[1:] == [EdgeScores(4, ())]


def test_end_reaches_the_devices_that_are_there(world: Callable[..., World]) -> None:
    here = world(LONG, "d0", "d1")
    assert not here.rounds.wait_for_end(0.01)
    assert here.rounds.handle(CLOUD, Task("end", 0, 0)) == Accepted()
    assert not here.rounds.wait_for_end(0.01)
    assert here.task("d0").what == "end"
    here.rounds.left("d1")
    assert here.rounds.wait_for_end(1)


@pytest.mark.parametrize("request_", [ORDER, Task("end", 0, 0), EdgeScores(0, ())])
def test_device_may_not_order(world: Callable[..., World], request_: Message) -> None:
    here = world(LONG, "d0")
    here.rounds.handle("d0", request_)
    assert here.edge.calls == [("d0", type(request_).__name__)]  # the edge itself refuses it


@pytest.mark.parametrize("request_", [Next(), REGISTER, UPDATE, Ready(0, 0, 1, 1)])
def test_cloud_may_order_only(world: Callable[..., World], request_: Message) -> None:
    with pytest.raises(ProtocolError, match="nothing the cloud may send"):
        world(LONG).rounds.handle(CLOUD, request_)


def test_unwelcome_device_stays_out(world: Callable[..., World]) -> None:
    here = world(LONG)
    with pytest.raises(ConfigError, match="d0 differs"):
        here.rounds.handle("d0", Register({}))
    with pytest.raises(ProtocolError, match="must send Register first"):
        here.rounds.handle("d0", UPDATE)
    assert not here.edge.calls


def test_requests_of_others_come_in_while_the_lane_computes_and_each_device_has_one(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world(LONG, "d0", "d1")
    entered, go_on = threading.Event(), threading.Event()

    def handle(peer: str, request: Message) -> Message:
        if peer == "d0":
            entered.set()
            assert go_on.wait(20)
        return Accepted()

    monkeypatch.setattr(here.edge, "handle", handle)
    threads = [
        threading.Thread(target=here.rounds.handle, args=(peer, UPDATE)) for peer in ("d0", "d1")
    ]
    threads[0].start()
    assert entered.wait(20)
    threads[1].start()  # read, decoded and queued while the lane is at the other's
    for _ in range(2000):
        if here.rounds.queued == 2:
            break
        sleep(0.01)
    assert here.rounds.queued == 2
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert here.rounds.queued == 0


def test_connected_are_those_greeted_and_not_away(world: Callable[..., World]) -> None:
    here = world(LONG, "d0", "d1")
    assert here.rounds.connected == 2
    here.rounds.left("d0")
    assert here.rounds.connected == 1
    here.rounds.back("d0")
    assert here.rounds.connected == 2
    here.rounds.began("d0")  # a new session must register again
    assert here.rounds.connected == 1

"""Who is waited for, how long, and who may say what; the edge behind it is a list of calls."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import sleep, time
from typing import Any

import pytest

from elsa.config.schema import Deploy
from elsa.core.codec import Packet
from elsa.engine.deploy import rounds as module
from elsa.engine.deploy.rounds import CLOUD, EdgeRounds
from elsa.errors import ConfigError, ElsaError, ProtocolError
from elsa.wire.messages import (
    Accepted,
    Activations,
    EdgeScores,
    EdgeUpdate,
    EvaluationOrder,
    Gradients,
    LabelledActivations,
    LocalPlan,
    Message,
    Next,
    Ready,
    Register,
    Resend,
    RoundOrder,
    Score,
    Task,
    Update,
    Welcome,
)
from elsa.wire.places import Clock, Move, Ping, Presence, RollCall, Route
from elsa.wire.watching import Behaviours, Verdicts

SHORT = Deploy(answer_seconds=0.4, reconnect_seconds=0.4, round_seconds=30)
LONG = Deploy(answer_seconds=60, reconnect_seconds=60, round_seconds=60)
ORDER = RoundOrder(3, 2, 1, ("d0", "d1"), {})
REGISTER = Register({"a": "b"})
UPDATE = Update(3, 0, {}, 1, 1, 0.0)
PACKET = Packet("identity", "float32", (1, 1), bytes(4))


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
        self._order, self._watched = order, 0

    def close_edge_round(self) -> None:
        self._note("average")

    def close(self) -> Any:
        self._note("close")
        if isinstance(self._order, EvaluationOrder):
            return EdgeScores(self._order.round, ())
        return EdgeUpdate(self._order.round, {}, 1.0, ())

    def handle(self, peer: str, request: Message) -> Message:
        self._note(peer, type(request).__name__)
        if isinstance(request, Ready):
            return LocalPlan(request.round, request.edge_round, 1, 0, {})
        return Accepted()

    @property
    def watched(self) -> bool:
        return isinstance(self._order, RoundOrder) and self._watched < self._order.watched

    def behaviours(self) -> Behaviours:
        self._note("behaviours")
        return Behaviours(self._order.round, self._watched, ())

    def settle(self, verdicts: Verdicts) -> None:
        self._note("settle", verdicts.edge_round)
        self._watched += 1

    def lose(self, peer: str, reason: str) -> None:
        self._note("lose", peer, reason.partition(":")[0])


class World:
    def __init__(self, patience: Deploy) -> None:
        self.edge = Edge()
        self.kept: list[str] = []
        self.rounds = EdgeRounds(
            self.edge,  # type: ignore[arg-type]
            ["d0", "d1"],
            self._welcome,
            patience,
            lambda edge: self.kept.append(edge.name),
        )
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
            except ElsaError as error:  # as `wire.transport.serve` does
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

    def admit(self, peer: str, round_: int = 3, edge_round: int = 0) -> str:
        """The token that a device is given for an edge round."""
        plan = self.rounds.handle(peer, Ready(round_, edge_round, 1, 1))
        assert isinstance(plan, LocalPlan)
        return plan.token

    def finish(self, peer: str, edge_round: int = 0) -> None:
        """A device's part of a task, from its plan to its update."""
        token = self.admit(peer, 3, edge_round)
        self.rounds.handle(peer, replace(UPDATE, edge_round=edge_round, token=token))

    def score(self, peer: str, round_: int) -> None:
        token = self.admit(peer, round_)
        self.rounds.handle(peer, Score(round_, 1, 1, 0.0, token=token))

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
            here.finish(peer, edge_round)
    cloud.join(10)
    assert here.answer == [EdgeUpdate(3, {}, 1.0, ())]
    updates = [(peer, kind) for peer in ("d1", "d0") for kind in ("Ready", "Update")]
    assert here.edge.calls == ["open", *updates, "average", *updates, "average", "close"]
    assert len(here.edge.threads) == 1
    assert here.kept == ["edge-0"]  # once, when all is done


def test_task_is_given_once(world: Callable[..., World]) -> None:
    here = world(LONG, "d0", "d1")
    here.order()
    assert here.task("d0").what == "train"
    assert here.rounds.handle("d0", Next()) == Task("wait", 0, 0)


def test_evaluation_is_one_task_and_ends_with_scores(world: Callable[..., World]) -> None:
    here = world(LONG, "d0")
    cloud = here.order(EvaluationOrder(3, ("d0",), {}))
    assert here.task("d0") == Task("evaluate", 3, 0)
    here.score("d0", 3)
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
    here.finish("d0")
    cloud.join(10)
    assert not [call for call in here.edge.calls if call[0] == "lose"]


def test_device_that_stays_away_is_left_out_however_long_it_may_think(
    world: Callable[..., World],
) -> None:
    here = world(LONG.model_copy(update={"reconnect_seconds": 0.3}), "d0")
    cloud = here.order(RoundOrder(3, 1, 1, ("d0",), {}))
    here.task("d0")
    here.rounds.left("d0")
    cloud.join(10)
    assert ("lose", "d0", "LinkError") in here.edge.calls
    assert isinstance(here.answer[0], EdgeUpdate)


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
    here.score("d0", 4)
    second.join(10)
    assert here.answer[1:] == [EdgeScores(4, ())]


def test_end_reaches_the_devices_that_are_there(world: Callable[..., World]) -> None:
    here = world(SHORT, "d0", "d1")
    assert not here.rounds.wait_for_end(0.01)
    assert here.rounds.handle(CLOUD, Task("end", 0, 0)) == Accepted()
    assert not here.rounds.wait_for_end(0.01)
    assert here.task("d0").what == "end"
    here.rounds.left("d1")
    assert not here.rounds.wait_for_end(0.01)  # it may come back
    sleep(0.5)
    assert here.rounds.wait_for_end(1)


def test_device_that_was_sent_elsewhere_is_not_waited_for_at_the_end(
    world: Callable[..., World],
) -> None:
    here = world(LONG, "d0")
    here.rounds.handle(CLOUD, RollCall((Move("d0", "edge-1"),)))
    assert here.task("d0").what == "move"
    with pytest.raises(ProtocolError, match="must send Register first"):
        here.rounds.handle("d0", Next())
    here.rounds.handle(CLOUD, Task("end", 0, 0))
    assert here.rounds.wait_for_end(1)


@pytest.mark.parametrize("request_", [ORDER, Task("end", 0, 0), EdgeScores(0, ())])
def test_device_may_not_order(world: Callable[..., World], request_: Message) -> None:
    here = world(LONG, "d0")
    here.rounds.handle("d0", request_)
    assert here.edge.calls == [("d0", type(request_).__name__)]  # the edge itself refuses it


def test_token_of_an_edge_round_is_good_for_it_alone(world: Callable[..., World]) -> None:
    here = world(LONG, "d0", "d1")
    here.order()
    old, other = here.admit("d0"), here.admit("d1")
    assert old != other
    new = here.admit("d0")
    hidden = Activations(0, True, (1,), PACKET)
    labelled = LabelledActivations(0, True, (1,), (0,), PACKET)
    for shown in ("", old, other):
        for step in (UPDATE, Resend(0), Gradients(0, PACKET), hidden, labelled):
            with pytest.raises(ProtocolError, match=r"device d0 shows (no|another) token"):
                here.rounds.handle("d0", replace(step, token=shown))
    here.rounds.handle("d0", replace(UPDATE, token=new))
    with pytest.raises(ProtocolError, match="another token"):  # a replay: that round is over
        here.rounds.handle("d0", replace(UPDATE, token=new))
    here.rounds.handle("d1", replace(UPDATE, token=other))  # who showed its own is not touched
    here.admit("d1", 3, 1)
    here.rounds.lose("d1", "why")
    with pytest.raises(ProtocolError, match="another token"):
        here.rounds.handle("d1", replace(UPDATE, token=other))


def test_enough_devices_end_an_edge_round_a_while_later(world: Callable[..., World]) -> None:
    patience = LONG.model_copy(update={"device_quorum": 0.5, "straggler_seconds": 0.3})
    here = world(patience, "d0", "d1")
    cloud = here.order(RoundOrder(3, 1, 1, ("d0", "d1"), {}))
    here.task("d1")
    sleep(0.5)
    assert not here.answer  # nobody is done: no quorum, however late it is
    here.task("d0")
    here.finish("d0")
    cloud.join(10)
    assert ("lose", "d1", "LinkError") in here.edge.calls
    assert isinstance(here.answer[0], EdgeUpdate)


def test_lost_devices_are_no_quorum(world: Callable[..., World]) -> None:
    patience = LONG.model_copy(update={"device_quorum": 0.5, "straggler_seconds": 0.1})
    here = world(patience, "d0", "d1")
    here.order(RoundOrder(3, 1, 1, ("d0", "d1"), {}))
    here.task("d0")
    here.rounds.lose("d0", "CodecError: NaN")
    sleep(0.5)
    assert not here.answer
    assert ("lose", "d1", "LinkError") not in here.edge.calls


def test_watched_edge_round_waits_for_verdicts(world: Callable[..., World]) -> None:
    here = world(LONG, "d0")
    cloud = here.order(RoundOrder(3, 2, 1, ("d0",), {}, watched=1, fingerprints=True))
    here.task("d0")
    here.finish("d0")
    cloud.join(10)
    assert here.answer == [Behaviours(3, 0, ())]
    assert here.rounds.handle("d0", Next()) == Task("wait", 0, 0)
    with pytest.raises(ProtocolError, match="nothing the cloud may send"):
        here.rounds.handle(CLOUD, Behaviours(3, 0, ()))
    cloud = here.order(Verdicts(3, 0, ()))
    cloud.join(10)
    # d0 was in no behaviour: it is left out of the rest
    assert here.edge.calls[-3:] == [("settle", 0), "average", "close"]
    assert isinstance(here.answer[1], EdgeUpdate)


def test_verdicts_without_a_round_are_refused(world: Callable[..., World]) -> None:
    with pytest.raises(ProtocolError, match="no round is open"):
        world(LONG).rounds.handle(CLOUD, Verdicts(3, 0, ()))


def test_roll_says_who_is_there_and_sends_whoever_belongs_elsewhere(
    world: Callable[..., World],
) -> None:
    here = world(LONG, "d1")
    way = Route("edge-1", 0.5, -0.1)
    here.rounds.handle("d0", Register({"a": "b"}, (way,)))

    def roll(*moves: Move) -> dict[str, tuple[Route, ...]]:
        answer = here.rounds.handle(CLOUD, RollCall(moves))
        assert isinstance(answer, Presence)
        return {it.device: tuple(it.routes) for it in answer.present}

    assert roll() == {"d0": (way,), "d1": ()}
    here.rounds.left("d1")
    assert roll(Move("d0", "edge-1")) == {"d0": (way,)}
    assert roll() == {"d0": (way,)}  # forgotten by the next roll call
    assert here.rounds.handle("d0", Next()) == Task("wait", 0, 0)
    roll(Move("d0", "edge-1"))
    assert here.task("d0") == Task("move", 0, 0, "edge-1")
    assert roll() == {}
    here.rounds.handle("d0", REGISTER)
    assert roll() == {"d0": ()}
    here.rounds.began("d0")
    assert roll() == {}


@pytest.mark.parametrize("peer", ["d0", CLOUD])
def test_ping_is_answered_before_anything_else(world: Callable[..., World], peer: str) -> None:
    here = world(LONG)
    before = time()
    answer = here.rounds.handle(peer, Ping())
    assert isinstance(answer, Clock)
    assert before - 1 < answer.microseconds / 1e6 < time() + 1
    assert not here.edge.calls


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
        threading.Thread(target=here.rounds.handle, args=(peer, Ready(3, 0, 1, 1)))
        for peer in ("d0", "d1")
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

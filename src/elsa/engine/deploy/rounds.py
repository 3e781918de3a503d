"""An edge server whose devices come, go and compute on their own.

The cloud asks with an order and waits for its answer; in between, devices ask for their tasks and
take their steps. Requests come from a thread a caller; whatever touches the edge runs on one
compute lane, first come first served, and each device has one request there at most.

A device that does not come, says nothing for too long, or is not done a while after enough others
were, is left out of the round and named in the report; so every order ends in a bounded time.
"""

import logging
import math
import threading
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from time import monotonic, time
from typing import Any, TypeVar

from elsa.config.schema import Deploy
from elsa.core.buffer import enough as enough_of
from elsa.engine.deploy.roll import Roll
from elsa.engine.deploy.tokens import Step, Tokens
from elsa.errors import LinkError, ProtocolError
from elsa.roles.edge import Edge
from elsa.wire.messages import (
    Accepted,
    EdgeScores,
    EdgeUpdate,
    EvaluationOrder,
    LocalPlan,
    Message,
    Next,
    Register,
    RoundOrder,
    Score,
    Task,
    Update,
    Welcome,
)
from elsa.wire.places import Clock, Ping, RollCall
from elsa.wire.watching import Behaviours, Verdicts

CLOUD = "cloud"
"""Name of the only caller whose orders an edge takes."""
HOLD = 5.0
"""Seconds that a device waits for a task before it is told to ask again."""

Answer = TypeVar("Answer")
Order = RoundOrder | EvaluationOrder
Outcome = EdgeUpdate | EdgeScores | Behaviours
_WAIT = Task("wait", 0, 0)
_STOPPING = "this edge server is stopping"
_log = logging.getLogger(__name__)


class EdgeRounds:
    """What an edge's server answers with; safe to call from several threads."""

    def __init__(
        self,
        edge: Edge,
        roster: Collection[str],
        welcome: Callable[[str, Register], Welcome],
        patience: Deploy,
        keep: Callable[[Edge], None] = lambda _: None,
    ) -> None:
        """Set up.

        Args:
            edge: the edge; nobody else may touch it from now on.
            roster: names of the devices that may come.
            welcome: greets a device, or raises what it is refused with.
            patience: how long is waited for what.
            keep: called on the lane when an order has been carried out, to save what is to last.
        """
        self._edge = edge
        self._roster = frozenset(roster)
        self._welcome = welcome
        self._patience = patience
        self._keep = keep
        self._tokens = Tokens()
        self._lane = ThreadPoolExecutor(1, "lane")
        self._news = threading.Condition()
        self._order = 0  # number of the order being carried out; those before are over
        self._running: Order | None = None  # the order itself
        self._edge_round = 0
        self._until = 0.0  # when the order must be over
        self._task: Task | None = None
        self._due: dict[str, float] = {}  # devices awaited, and when each was last heard
        self._lost: set[str] = set()  # devices left out of the rest of the order
        self._finished = 0  # how many have done the task
        self._told: set[str] = set()  # those that have their task
        self._asking: set[str] = set()  # those that the edge is answering
        self._roll = Roll()
        self._ending = False
        self._heard_end: set[str] = set()
        self._queued: set[Future[Any]] = set()

    def handle(self, peer: str, request: Message) -> Message:
        """Answer a device or the cloud.

        Raises:
            ElsaError: the request is refused.
        """
        if isinstance(request, Ping):
            return Clock(int(time() * 1e6))
        if peer == CLOUD:
            return self._obey(request)
        if isinstance(request, Register):
            greeting = self._welcome(peer, request)
            with self._news:
                self._roll.greet(peer, request.routes)
            return greeting
        if peer not in self._roll:
            raise ProtocolError(f"device {peer} must send Register first")
        with self._news:
            self._roll.hear(peer)
            self._asking.add(peer)
        try:
            if isinstance(request, Next):
                return self._next(peer)
            return self._step(peer, request)
        finally:
            with self._news:
                self._asking.discard(peer)
                if peer in self._due:
                    self._due[peer] = monotonic()
                self._news.notify_all()

    def began(self, peer: str) -> None:
        """A caller began a new session; what it had done of a round is lost."""
        with self._news:
            self._roll.begin(peer)
            lost = peer in self._due and peer in self._told
        if lost:
            self.lose(peer, "LinkError: it began a new session in the middle of its task")

    def back(self, peer: str) -> None:
        """A caller's stream is there again."""
        with self._news:
            self._roll.away.pop(peer, None)

    def left(self, peer: str) -> None:
        """A caller's stream ended; it may come back."""
        with self._news:
            if peer in self._roster:
                self._roll.away[peer] = monotonic()
            self._news.notify_all()

    def lose(self, peer: str, reason: str) -> None:
        """Leave a device out of the rest of the round."""
        with self._news:
            order = self._order
            if self._due.pop(peer, None) is None:
                return
            self._lost.add(peer)
        self._tokens.drop(peer)
        _log.warning("%s left out of the round: %s", peer, reason)
        self._on_lane(lambda: self._edge.lose(peer, reason) if order == self._order else None)
        with self._news:
            self._news.notify_all()

    def wait_for_end(self, seconds: float) -> bool:
        """Whether the cloud has said that the run is over, and the devices have been told."""
        with self._news:
            return self._news.wait_for(self._all_told, seconds)

    @property
    def connected(self) -> int:
        """Devices that were greeted and have a stream."""
        with self._news:
            return len(self._roll.there())

    @property
    def queued(self) -> int:
        """Pieces of work that wait for the compute lane, or are on it."""
        return len(self._queued)

    @property
    def pending(self) -> int:
        """Forward passes whose backward passes are due."""
        return self._edge.pending

    @property
    def under_way(self) -> str:
        """What is being carried out, for people; empty if nothing is."""
        task = self._task
        return f"{task.what} {task.round}.{task.edge_round}" if task else ""

    def close(self) -> None:
        """End: orders being carried out are given up."""
        with self._news:
            self._order += 1
            self._ending = True
            self._news.notify_all()
        self._lane.shutdown(wait=False, cancel_futures=True)

    # Towards the cloud.

    def _obey(self, request: Message) -> Message:
        match request:
            case RoundOrder() | EvaluationOrder():
                return self._carry_out(request)
            case Verdicts():
                return self._settle(request)
            case RollCall():
                with self._news:
                    self._news.notify_all()
                    return self._roll.call(request.moves)
            case Task(what="end"):
                with self._news:
                    self._ending = True
                    self._news.notify_all()
                return Accepted()
            case _:
                raise ProtocolError(f"{type(request).__name__} is nothing the cloud may send")

    def _carry_out(self, order: Order) -> Outcome:
        """Run an order to its end; one that comes meanwhile takes its place."""
        with self._news:
            self._order += 1
            number = self._order
            self._running, self._edge_round = order, 0
            self._until = monotonic() + self._patience.round_seconds
            self._due.clear()
            self._lost = set(order.devices) - self._roster
            self._task = None
            self._news.notify_all()
        _log.info("%s of round %d for %s", type(order).__name__, order.round, list(order.devices))
        self._for_order(number, lambda: self._edge.open(order))
        for name in tuple(self._lost):
            self._for_order(number, partial(self._edge.lose, name, "it is none of this edge's"))
        if isinstance(order, EvaluationOrder):
            self._run(number, Task("evaluate", order.round, 0), order.devices)
            return self._close(number)
        return self._go_on(number, order)

    def _settle(self, verdicts: Verdicts) -> Outcome:
        """Go on with the order that stopped for these verdicts."""
        with self._news:
            number, order = self._order, self._running
        if not isinstance(order, RoundOrder):
            raise ProtocolError("verdicts came where no round is open; this edge began anew")
        self._for_order(number, partial(self._edge.settle, verdicts))
        self._edge_round += 1
        return self._go_on(number, order)

    def _go_on(self, number: int, order: RoundOrder) -> Outcome:
        """Edge rounds until one is watched, or until the last."""
        while self._edge_round < order.edge_rounds:
            self._run(number, Task("train", order.round, self._edge_round), order.devices)
            if self._for_order(number, lambda: self._edge.watched):
                told = self._for_order(number, self._edge.behaviours)
                behaved = {it.device for it in told.behaviours}
                with self._news:
                    self._lost |= set(order.devices) - behaved
                return told
            self._for_order(number, self._edge.close_edge_round)
            self._edge_round += 1
        return self._close(number)

    def _close(self, number: int) -> Outcome:
        outcome = self._for_order(number, self._edge.close)
        with self._news:
            self._running = None
        self._for_order(number, lambda: self._keep(self._edge))
        return outcome

    def _run(self, number: int, task: Task, names: Collection[str]) -> None:
        """Have those of these devices do a task that are not lost."""
        now = monotonic()
        with self._news:
            self._check(number)
            self._task, self._told = task, set()
            self._due = {name: now for name in names if name not in self._lost}
            self._finished, enough = 0, enough_of(self._patience.device_quorum, len(self._due))
            self._roll.expect(self._due)
            self._news.notify_all()
        quorum = math.inf  # when there were enough
        while True:
            with self._news:
                self._check(number)
                if self._finished >= enough:
                    quorum = min(quorum, monotonic())
                late = self._late(quorum)
                if not late and not self._due:
                    self._task = None
                    return
                if not late:
                    self._news.wait(0.25)
            for name, reason in late.items():
                self.lose(name, reason)

    def _late(self, quorum: float) -> dict[str, str]:
        """Devices that are waited for no longer, and why."""
        now, patience, late = monotonic(), self._patience, {}
        for name, heard in self._due.items():
            away = self._roll.away.get(name)
            if now > self._until:
                late[name] = f"LinkError: not done after {patience.round_seconds:g} s"
            elif now - quorum > patience.straggler_seconds:
                late[name] = (
                    f"LinkError: not done {patience.straggler_seconds:g} s after "
                    f"{patience.device_quorum:.0%} of the devices were"
                )
            elif away is not None and now - away > patience.reconnect_seconds:
                late[name] = f"LinkError: away for {patience.reconnect_seconds:g} s"
            elif name not in self._asking and now - heard > patience.answer_seconds:
                late[name] = f"LinkError: not heard for {patience.answer_seconds:g} s"
        return late

    # Towards the devices.

    def _next(self, peer: str) -> Task:
        """A device's task, once there is one."""
        until = monotonic() + HOLD
        with self._news:
            while True:
                if self._ending:
                    self._heard_end.add(peer)
                    self._news.notify_all()
                    return Task("end", 0, 0)
                if going := self._roll.move(peer):
                    return going
                if self._task and peer in self._due and peer not in self._told:
                    self._told.add(peer)
                    return self._task
                left = until - monotonic()
                if left <= 0 or peer in self._roll.away:
                    return _WAIT
                self._news.wait(left)

    def _step(self, peer: str, request: Message) -> Message:
        if isinstance(request, Step):
            self._tokens.check(peer, request)
        answer = self._on_lane(lambda: self._edge.handle(peer, request))
        if isinstance(answer, LocalPlan):
            return self._tokens.give(peer, answer)
        if isinstance(request, Update | Score):
            self._tokens.drop(peer)
            self._done(peer)
        return answer

    def _done(self, peer: str) -> None:
        with self._news:
            self._finished += self._due.pop(peer, None) is not None
            self._news.notify_all()

    def _all_told(self) -> bool:
        awaited = self._roll.awaited(self._patience.reconnect_seconds)
        return self._ending and awaited <= self._heard_end

    # The lane.

    def _on_lane(self, work: Callable[[], Answer]) -> Answer:
        try:
            coming = self._lane.submit(work)
        except RuntimeError as error:
            raise LinkError(_STOPPING) from error
        self._queued.add(coming)
        try:
            return coming.result()
        except CancelledError as error:
            raise LinkError(_STOPPING) from error
        finally:
            self._queued.discard(coming)

    def _for_order(self, number: int, work: Callable[[], Answer]) -> Answer:
        """Do a part of an order on the lane, if it is still the one to carry out."""

        def unless_over() -> Answer:
            self._check(number)
            return work()

        return self._on_lane(unless_over)

    def _check(self, number: int) -> None:
        if number != self._order:
            raise ProtocolError("another order took the place of this one, or the edge is stopping")

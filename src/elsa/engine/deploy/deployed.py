"""The rounds of edge servers that are elsewhere, as the cloud has them played."""

import logging
import math
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any

from elsa.core.score import Tally
from elsa.engine.deploy.asking import Answer, Asking
from elsa.engine.deploy.rollcalls import RollCalls
from elsa.engine.deploy.side import CloudSide
from elsa.engine.globalround import Asked, Watch, play_round
from elsa.engine.tasks import data_of
from elsa.errors import ElsaError
from elsa.roles.cloud import tallies
from elsa.wire.checks import plain
from elsa.wire.messages import DeviceReport, EdgeScores, EdgeUpdate, Message, RoundOrder, Task
from elsa.wire.transport import Transport

_log = logging.getLogger(__name__)


class Deployed:
    """The rounds of edges that are elsewhere, asked all at once.

    Attributes:
        seconds: none; nothing is simulated.
    """

    seconds = 0.0

    def __init__(self, side: CloudSide, links: Mapping[str, Transport], watch: Watch) -> None:
        """Set up with a link to each edge, by name."""
        self._side = side
        self._patience = side.config.deploy
        self._asking = Asking(links)
        self._watch = watch
        self._calls = RollCalls(side, self._asking, watch)

    def gather(self) -> None:
        """Find out who is there for the next round; see `RollCalls.gather`."""
        self._calls.gather()

    def train_round(self) -> list[DeviceReport]:
        """One global round; an edge that does not answer counts nothing."""
        return play_round(self._side.cloud, self._answers, self._without, self._watch)

    def evaluate(self) -> dict[str, Tally]:
        """What each device counts with the global adapters, at the edge where it belongs now.

        Nobody is asked where no device keeps rows for it (`data.holdout_fraction`).
        """
        if not any(rows.holdout_fraction for rows in data_of(self._side.config).values()):
            return {}
        self.gather()
        meter = self._side.meter
        meter.phase = "evaluate"
        try:
            orders = self._side.cloud.evaluation_orders({})
            answers = self._ask({edge: it for edge, it in orders.items() if it.devices})
        finally:
            meter.phase = "train"
        heard = [it for it in answers.values() if isinstance(it, EdgeScores)]
        counted = tallies(heard)
        for edge, devices in self._side.cloud.assignment.items():
            for device in devices:
                if device not in counted:
                    self._watch.unheard(edge, device, f"no score came; the log of {edge} says why")
        return counted

    def state(self) -> dict[str, Any]:
        """Nothing: what devices have under way is lost with a round."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state`."""

    def end(self) -> None:
        """Tell the edges, and through them the devices, that the run is over."""
        until = monotonic() + self._calls.back

        def late(*_: object) -> str:
            return "did not answer in time" if monotonic() > until else ""

        told = self._asking.ask(dict.fromkeys(self._side.edges, Task("end", 0, 0)), late)
        for name, answer in told.items():
            if isinstance(answer, ElsaError):
                _log.warning("%s could not be told that the run is over: %s", name, answer)

    def close(self) -> None:
        """Ask nothing more."""
        self._asking.close()

    def _answers(self, asked: Mapping[str, Asked]) -> Iterator[tuple[str, Answer]]:
        """In a fixed order, so that sums do not depend on who was first."""
        yield from self._ask(asked).items()

    def _without(self, name: str, order: RoundOrder, error: ElsaError) -> None:
        """Go on without an edge."""
        reason = f"{name}: {type(error).__name__}: {error}"
        _log.warning("round %d without %s", order.round, reason)
        lost = tuple(DeviceReport(it, 0, 0, 0.0, plain(reason)) for it in order.devices)
        cloud = self._side.cloud
        cloud.receive(name, EdgeUpdate(order.round, cloud.adapters, 0.0, lost))

    def _ask(self, orders: Mapping[str, Message]) -> dict[str, Answer]:
        """The answer of each edge to an order, or why there is none."""
        patience, enough = self._patience, math.ceil(self._patience.edge_quorum * len(orders))
        since = [math.inf]

        def give_up(_: object, answers: Mapping[str, Answer]) -> str:
            if sum(not isinstance(it, ElsaError) for it in answers.values()) >= enough:
                since[0] = min(since[0], monotonic())
            if monotonic() - since[0] <= patience.straggler_seconds:
                return ""
            return (
                f"was not done {patience.straggler_seconds:g} s after {patience.edge_quorum:.0%} "
                "of the edges were"
            )

        return self._asking.ask(orders, give_up, self._watch.tick)

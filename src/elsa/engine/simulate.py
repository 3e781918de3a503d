"""The embedded engine: all parties in this process, in a fixed order, over serialised messages.

One frozen backbone serves every device; a virtual clock says how long the round would have taken.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from elsa.core.score import Tally
from elsa.engine.clock import cloud_seconds, drifted, order_seconds
from elsa.engine.edgeside import EdgeSide
from elsa.engine.federation import Federation
from elsa.engine.globalround import Asked, Watch, play_round
from elsa.engine.timeline import Timeline
from elsa.errors import ElsaError
from elsa.roles.cloud import tallies
from elsa.roles.exchange import expect
from elsa.wire.inprocess import InProcess
from elsa.wire.messages import (
    DeviceReport,
    EdgeScores,
    EvaluationOrder,
    Message,
    RoundOrder,
)
from elsa.wire.transport import Handler, Layer, Link, Passage
from elsa.wire.watching import Verdicts

CLOUD = "cloud"


class _Cable:
    """A layer that takes down how many bytes an exchange of a link moved each way."""

    def __init__(self) -> None:
        self.asked = 0
        self.answered = 0

    def __call__(self, passage: Passage) -> bytes:
        if passage.direction == passage.link.direction(request=True):
            self.asked = len(passage.data)
        else:
            self.answered = len(passage.data)
        return passage.data


class Simulation:
    """Runs a federation round by round.

    Attributes:
        seconds: simulated time so far.
    """

    def __init__(
        self,
        federation: Federation,
        watch: Watch | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        """Set up; `watch` is told how it goes, `timeline` when."""
        self.federation = federation
        self.seconds = 0.0
        self._watch = watch or Watch()
        self._timeline = timeline
        self._sides = {
            name: EdgeSide(federation, edge, self._watch, timeline)
            for name, edge in federation.edges.items()
        }
        self._speeds = federation.speeds

    def gather(self) -> None:
        """All are always there."""

    def state(self) -> dict[str, Any]:
        """Work under way at the edges after a global round, as plain values for a checkpoint."""
        return {name: side.state() for name, side in self._sides.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state`."""
        for name, side in self._sides.items():
            side.restore(state[name])

    def train_round(self) -> list[DeviceReport]:
        """One global round: orders out, edge rounds, updates back, the mean taken."""
        cloud, config = self.federation.cloud, self.federation.config
        number, began = cloud.round, self.seconds
        self._speeds = drifted(self.federation.speeds, config.network, config.run.seed, number)
        reports = play_round(cloud, self._answers, _fail, self._watch)
        if self._timeline:
            self._timeline.round(number, began, self.seconds)
        return reports

    def evaluate(self) -> dict[str, Tally]:
        """What each device, testers included, counts with the global adapters."""
        meter = self.federation.meter
        testers = {
            edge: [device.name for device in devices]
            for edge, devices in self.federation.testers.items()
        }
        meter.phase = "evaluate"
        try:
            orders = self.federation.cloud.evaluation_orders(testers)
            answers = [expect(EdgeScores, self._evaluate(*order)) for order in orders.items()]
        finally:
            meter.phase = "train"
        return tallies(answers)

    def _answers(self, asked: Mapping[str, Asked]) -> Iterator[tuple[str, Message]]:
        """One edge after the other; those of a real federation would answer at the same time."""
        slowest = 0.0
        for name, request in asked.items():
            reply, seconds = self._ask_edge(name, request)
            slowest = max(slowest, seconds)
            yield name, reply
        self.seconds += slowest

    def _ask_edge(self, name: str, request: RoundOrder | Verdicts) -> tuple[Message, float]:
        """The edge's answer, and the simulated seconds until it was there."""
        side, network, cable = self._sides[name], self.federation.config.network, _Cable()

        def handle(_: str, asked: Message) -> Message:
            assert isinstance(asked, RoundOrder | Verdicts)
            at = self.seconds + order_seconds(network, cable.asked)
            return side.train(asked, at, self._speeds)

        answer = self._link(name, handle, cable).call(request)
        moving = cloud_seconds(network, cable.answered, cable.asked)
        if self._timeline:
            there = self.seconds + order_seconds(network, cable.asked)
            asked, answered = type(request).__name__, type(answer).__name__
            back = self.seconds + (moving + side.seconds)
            self._timeline.sent(name, asked, self.seconds, there)
            self._timeline.sent(name, answered, there + side.seconds, back)
        return answer, moving + side.seconds

    def _evaluate(self, name: str, order: EvaluationOrder) -> Message:
        side = self._sides[name]
        return self._link(name, lambda _, it: side.evaluate(expect(EvaluationOrder, it))).call(
            order
        )

    def _link(self, edge: str, handle: Handler, *layers: Layer) -> InProcess:
        return InProcess(
            handle, Link("edge_cloud", edge, CLOUD), (*self.federation.layers, *layers)
        )


def _fail(edge: str, order: RoundOrder, error: ElsaError) -> NoReturn:  # noqa: ARG001
    """What an edge of this process gets wrong is a fault of elsa's own."""
    raise error

"""The embedded engine: all parties in this process, in a fixed order, over serialised messages.

One frozen backbone serves every device; a virtual clock says how long the round would have taken.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn, Protocol

from elsa.core.score import Tally
from elsa.engine.clock import Speed, cloud_seconds, drifted, order_seconds
from elsa.engine.edgeside import EdgeSide
from elsa.engine.federation import Federation
from elsa.engine.globalround import Asked, Watch, play_round
from elsa.engine.timeline import CLOUD, Timeline
from elsa.errors import ElsaError
from elsa.roles.cloud import tallies
from elsa.roles.exchange import expect
from elsa.wire.messages import DeviceReport, EdgeScores, Message, RoundOrder
from elsa.wire.transport import Caller, Link, at_once


class Side(Protocol):
    """Everything below one edge's link to the cloud: `EdgeSide`, or one in another process.

    Attributes:
        seconds: simulated, that the edge rounds of the last request took.
    """

    seconds: float

    def answer(self, frame: bytes, at: float, speeds: Mapping[str, Speed]) -> bytes:
        """The frame that answers a frame of the cloud; see `EdgeSide.train`."""
        ...

    def state(self) -> dict[str, Any]:
        """Work under way after a global round, as plain values for a checkpoint."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state`."""
        ...


class Line(Caller):
    """The cloud's link to an edge of a simulation.

    Attributes:
        there: simulated seconds until the last request had come.
        seconds: simulated seconds until its answer was back.
    """

    def __init__(self, simulation: "Simulation", edge: str, side: Side) -> None:
        link = Link("edge_cloud", edge, CLOUD)
        super().__init__(*at_once(self._exchange), link, simulation.federation.layers)
        self.there = self.seconds = 0.0
        self._of = simulation
        self._side = side

    def _exchange(self, frame: bytes) -> bytes:
        of, network = self._of, self._of.federation.config.network
        self.there = order_seconds(network, len(frame))
        answer = self._side.answer(frame, of.seconds + self.there, of.speeds)
        moving = cloud_seconds(network, len(answer), len(frame))
        self.seconds = moving + self._side.seconds
        return answer


class Simulation:
    """Runs a federation round by round.

    Attributes:
        federation: who takes part.
        seconds: simulated time so far.
        speeds: of the devices in this round.
        sides: what is below the cloud's link to each edge.
        lines: these links.
    """

    def __init__(
        self,
        federation: Federation,
        watch: Watch | None = None,
        timeline: Timeline | None = None,
        sides: Mapping[str, Side] | None = None,
    ) -> None:
        """Set up.

        Args:
            federation: who takes part.
            watch: told how it goes.
            timeline: told when.
            sides: what plays each edge with its devices; None has this process do it.
        """
        self.federation = federation
        self.seconds = 0.0
        self.speeds = federation.speeds
        self._watch = watch or Watch()
        self._timeline = timeline
        self.sides: Mapping[str, Side] = sides or {
            name: EdgeSide(federation, edge, self._watch, timeline)
            for name, edge in federation.edges.items()
        }
        self.lines = {name: Line(self, name, side) for name, side in self.sides.items()}

    def gather(self) -> None:
        """All are always there."""

    def state(self) -> dict[str, Any]:
        """Work under way at the edges after a global round, as plain values for a checkpoint."""
        return {name: side.state() for name, side in self.sides.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state`."""
        for name, side in self.sides.items():
            side.restore(state[name])

    def train_round(self) -> list[DeviceReport]:
        """One global round: orders out, edge rounds, updates back, the mean taken."""
        cloud, config = self.federation.cloud, self.federation.config
        number, began = cloud.round, self.seconds
        self.speeds = drifted(self.federation.speeds, config.network, config.run.seed, number)
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
            answers = [expect(EdgeScores, answer) for _, answer in self.ask(orders)]
        finally:
            meter.phase = "train"
        return tallies(answers)

    def ask(self, requests: Mapping[str, Message]) -> Iterable[tuple[str, Message]]:
        """The answer of each edge, in the order in which they are asked: one after the other.

        Raises:
            ElsaError: an edge refuses.
        """
        for name, request in requests.items():
            yield name, self.lines[name].call(request)

    def _answers(self, asked: Mapping[str, Asked]) -> Iterator[tuple[str, Message]]:
        """Those of a real federation would answer at the same time, and so they do by the clock."""
        slowest = 0.0
        for name, answer in self.ask(asked):
            self._draw(name, asked[name], answer)
            slowest = max(slowest, self.lines[name].seconds)
            yield name, answer
        self.seconds += slowest

    def _draw(self, name: str, request: Asked, answer: Message) -> None:
        if self._timeline is None:
            return
        line, side = self.lines[name], self.sides[name]
        there, back = self.seconds + line.there, self.seconds + line.seconds
        self._timeline.sent(name, type(request).__name__, self.seconds, there)
        self._timeline.sent(name, type(answer).__name__, there + side.seconds, back)


def _fail(edge: str, order: RoundOrder, error: ElsaError) -> NoReturn:  # noqa: ARG001
    """What an edge of this process gets wrong is a fault of elsa's own."""
    raise error

"""The embedded engine: all parties in this process, in a fixed order, over serialised messages.

One frozen backbone serves every device; a virtual clock says how long the round would have taken.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn

from elsa.core.score import Tally
from elsa.engine.clock import Trace, Turns, cloud_seconds, drifted, finish_times, turns_of
from elsa.engine.conversation import Conversation, in_lockstep, one_by_one
from elsa.engine.federation import Federation
from elsa.engine.globalround import Asked, DeviceRound, Watch, play_round
from elsa.errors import ElsaError
from elsa.roles.attacker import Attacker
from elsa.roles.cloud import tallies
from elsa.roles.device import Device
from elsa.roles.edge import Edge
from elsa.roles.exchange import expect
from elsa.wire.inprocess import InProcess
from elsa.wire.layers import Observe
from elsa.wire.messages import (
    DeviceReport,
    EdgeScores,
    EdgeUpdate,
    EvaluationOrder,
    Message,
    RoundOrder,
)
from elsa.wire.transport import Layer, Link
from elsa.wire.watching import Behaviours, Verdicts

CLOUD = "cloud"


@dataclass
class _Running:
    """How far an edge is with its order."""

    order: RoundOrder
    edge_round: int = 0
    lost: set[str] = field(default_factory=set)


class Simulation:
    """Runs a federation round by round.

    Attributes:
        seconds: simulated time so far.
    """

    def __init__(self, federation: Federation, watch: Watch | None = None) -> None:
        self.federation = federation
        self.seconds = 0.0
        self._watch = watch or Watch()
        self._edge_seconds = 0.0
        self._running: dict[str, _Running] = {}
        self._trunk = federation.config.federation.trunk
        self._speeds = federation.speeds

    def gather(self) -> None:
        """All are always there."""

    def train_round(self) -> list[DeviceReport]:
        """One global round: orders out, edge rounds, updates back, the mean taken."""
        cloud, config = self.federation.cloud, self.federation.config
        self._speeds = drifted(self.federation.speeds, config.network, config.run.seed, cloud.round)
        return play_round(cloud, self._answers, _fail, self._watch)

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
            answers = [
                expect(EdgeScores, self._ask_edge(name, order)[0]) for name, order in orders.items()
            ]
        finally:
            meter.phase = "train"
        return tallies(answers)

    def _answers(self, asked: Mapping[str, Asked]) -> Iterator[tuple[str, Message]]:
        """One edge after the other; those of a real federation would answer at the same time."""
        slowest = 0.0
        for name, request in asked.items():
            reply, there_and_back = self._ask_edge(name, request)
            slowest = max(slowest, there_and_back + self._edge_seconds)
            yield name, reply
        self.seconds += slowest

    def _ask_edge(self, name: str, order: Asked | EvaluationOrder) -> tuple[Message, float]:
        """The edge's answer, and the simulated seconds that both were on their way."""
        edge, network = self.federation.edges[name], self.federation.config.network
        moving = [0.0]

        def handle(_: str, request: Message) -> Message:
            if isinstance(request, RoundOrder):
                edge.open(request)
                self._running[name] = _Running(request)
                return self._run_round(edge)
            if isinstance(request, Verdicts):
                edge.settle(request)
                return self._run_round(edge)
            return self._run_evaluation(edge, expect(EvaluationOrder, request))

        def see(_: Message, up: int, down: int) -> None:
            moving[0] = cloud_seconds(network, up, down)

        layers: tuple[Layer, ...] = (*self.federation.layers, Observe(see))
        answer = InProcess(handle, Link("edge_cloud", name, CLOUD), layers).call(order)
        return answer, moving[0]

    def _run_round(self, edge: Edge) -> EdgeUpdate | EdgeScores | Behaviours:
        """Edge rounds until one is watched, or until the last."""
        running, self._edge_seconds = self._running[edge.name], 0.0
        while running.edge_round < running.order.edge_rounds:
            order = running.order
            taking_part = [name for name in order.devices if name not in running.lost]
            running.lost |= self._run_edge_round(edge, order, running.edge_round, taking_part)
            running.edge_round += 1
            if edge.watched:
                behaviours = edge.behaviours()
                running.lost |= set(taking_part) - {it.device for it in behaviours.behaviours}
                return behaviours
            edge.close_edge_round()
        return edge.close()

    def _run_edge_round(
        self, edge: Edge, order: RoundOrder, edge_round: int, names: list[str]
    ) -> set[str]:
        talks, traces = [], []
        turns = turns_of(self._trunk, names)
        for name in names:
            device = self.federation.devices[name]
            trace = self._trace(device, edge, turns[name])
            link = self._link(edge, name, Observe(trace.exchanged))
            exchange = device.train(order.round, edge_round)
            talks.append(Conversation(exchange, link, _losing(edge, name)))
            traces.append(trace)
        (one_by_one if self._trunk == "per-device" else in_lockstep)(talks, self._watch.tick)
        for talk, trace in zip(talks, traces, strict=True):
            if talk.result is not None and talk.result.alone:
                trace.worked(talk.result.alone)
        ends = finish_times([trace.legs for trace in traces])
        self._edge_seconds += max(ends, default=0.0)
        lost = set()
        for name, talk, trace, end in zip(names, talks, traces, ends, strict=True):
            if talk.result is None:
                reason = f"{type(talk.error).__name__}: {talk.error}"
                lost.add(name)
                seen = DeviceRound(edge_round, edge.name, name, 0, 0.0, end, trace.pace, reason)
            else:
                samples, loss = talk.result.samples, talk.result.loss
                seen = DeviceRound(edge_round, edge.name, name, samples, loss, end, trace.pace)
            self._watch.device(seen)
        return lost

    def _run_evaluation(self, edge: Edge, order: EvaluationOrder) -> EdgeUpdate | EdgeScores:
        edge.open(order)
        devices: dict[str, Device | Attacker] = dict(self.federation.devices)
        devices |= {tester.name: tester for tester in self.federation.testers.get(edge.name, ())}
        talks = [
            Conversation(
                devices[name].evaluate(order.round), self._link(edge, name), _losing(edge, name)
            )
            for name in order.devices
        ]
        one_by_one(talks, self._watch.tick)
        for name, talk in zip(order.devices, talks, strict=True):
            if talk.error is not None:
                self._watch.unheard(edge.name, name, f"{type(talk.error).__name__}: {talk.error}")
        return edge.close()

    def _link(self, edge: Edge, device: str, *layers: Layer) -> InProcess:
        link = Link("device_edge", device, edge.name)
        return InProcess(edge.handle, link, (*self.federation.layers, *layers), edge.lose)

    def _trace(self, device: Device | Attacker, edge: Edge, turns: Turns) -> Trace:
        federation = self.federation
        latency = federation.latencies[device.name, edge.name]
        return Trace(
            shape=federation.shape,
            split=device.segments.split,
            speed=replace(self._speeds[device.name], latency=latency),
            edge_flops=federation.config.network.edge_gflops * 1e9,
            declared=replace(federation.speeds[device.name], latency=latency),
            turns=turns,
        )


def _fail(edge: str, order: RoundOrder, error: ElsaError) -> NoReturn:  # noqa: ARG001
    """What an edge of this process gets wrong is a fault of elsa's own."""
    raise error


def _losing(edge: Edge, device: str) -> Callable[[ElsaError], None]:
    """Tell an edge at once that a device's link broke, so that nobody waits for the device."""
    return lambda error: edge.lose(device, f"{type(error).__name__}: {error}")

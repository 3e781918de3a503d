"""An edge server and its devices, played in this process against the virtual clock."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from elsa.engine.clock import Speed, Trace, Turns, turns_of
from elsa.engine.conversation import Conversation, in_lockstep, one_by_one
from elsa.engine.federation import Federation
from elsa.engine.globalround import DeviceRound, Watch
from elsa.engine.schedule import Leg, Schedule
from elsa.engine.timeline import Seen, Timeline
from elsa.errors import ElsaError
from elsa.roles.attacker import Attacker
from elsa.roles.device import Device, Trained
from elsa.roles.edge import Edge
from elsa.wire.inprocess import InProcess
from elsa.wire.layers import Observe
from elsa.wire.messages import EdgeScores, EdgeUpdate, EvaluationOrder, Message, RoundOrder
from elsa.wire.transport import Layer, Link
from elsa.wire.watching import Behaviours, Verdicts


@dataclass
class _Running:
    """How far the edge is with its order."""

    order: RoundOrder
    edge_round: int = 0
    lost: set[str] = field(default_factory=set)


class EdgeSide:
    """Everything below one edge's link to the cloud.

    Attributes:
        seconds: simulated, that the edge rounds of the last request took.
    """

    def __init__(
        self, federation: Federation, edge: Edge, watch: Watch, timeline: Timeline | None = None
    ) -> None:
        """Set up; `watch` is told how it goes, `timeline` when."""
        self.seconds = 0.0
        self._federation = federation
        self._edge = edge
        self._watch = watch
        self._timeline = timeline
        self._trunk = federation.config.federation.trunk
        self._speeds = federation.speeds
        self._running: _Running | None = None
        self._seen: list[Seen] = []
        self._schedule = Schedule(self._see if timeline else None)
        self._zero = 0.0

    def train(
        self, request: RoundOrder | Verdicts, at: float, speeds: Mapping[str, Speed]
    ) -> Message:
        """Edge rounds until one is watched, or until the last.

        Args:
            request: what the cloud asks.
            at: simulated time when that has come.
            speeds: of the devices in this round.
        """
        if isinstance(request, RoundOrder):
            self._edge.open(request)
            self._running = _Running(request)
        else:
            self._edge.settle(request)
        self._speeds, self._zero, self.seconds = speeds, at, 0.0
        assert self._running is not None
        return self._go_on(self._running)

    def evaluate(self, order: EvaluationOrder) -> Message:
        """Have the devices measure the adapters; takes no simulated time."""
        edge, federation = self._edge, self._federation
        self.seconds = 0.0
        edge.open(order)
        devices: dict[str, Device | Attacker] = dict(federation.devices)
        devices |= {tester.name: tester for tester in federation.testers.get(edge.name, ())}
        talks = [
            Conversation(devices[name].evaluate(order.round), self._link(name), self._losing(name))
            for name in order.devices
        ]
        one_by_one(talks, self._watch.tick)
        for name, talk in zip(order.devices, talks, strict=True):
            if talk.error is not None:
                self._watch.unheard(edge.name, name, f"{type(talk.error).__name__}: {talk.error}")
        return edge.close()

    def _go_on(self, running: _Running) -> EdgeUpdate | EdgeScores | Behaviours:
        order, edge = running.order, self._edge
        while running.edge_round < order.edge_rounds:
            taking_part = [name for name in order.devices if name not in running.lost]
            running.lost |= self._edge_round(order, running.edge_round, taking_part)
            running.edge_round += 1
            if edge.watched:
                behaviours = edge.behaviours()
                running.lost |= set(taking_part) - {it.device for it in behaviours.behaviours}
                return behaviours
            edge.close_edge_round()
        return edge.close()

    def _edge_round(self, order: RoundOrder, edge_round: int, names: list[str]) -> set[str]:
        """Play an edge round; the devices lost in it."""
        talks = self._talk(order, edge_round, names)
        done = []
        while ended := self._schedule.done():
            done.append(ended)
        lasted = max((it.end for it in done), default=0.0)
        self._draw(lasted, f"average {order.round}.{edge_round}")
        self._schedule.shift(lasted)
        self._zero += lasted
        self.seconds += lasted
        ends, lost = {it.device: it.end for it in done}, set()
        for name, (talk, trace) in talks.items():
            seen = DeviceRound(edge_round, self._edge.name, name, 0, 0.0, ends[name], trace.pace)
            if talk.result is None:
                lost.add(name)
                seen = replace(seen, lost=f"{type(talk.error).__name__}: {talk.error}")
            else:
                seen = replace(seen, samples=talk.result.samples, loss=talk.result.loss)
            self._watch.device(seen)
        return lost

    def _talk(
        self, order: RoundOrder, edge_round: int, names: list[str]
    ) -> dict[str, tuple[Conversation[Trained], Trace]]:
        """Have these devices do their part of an edge round, and their work begin."""
        talks, turns = {}, turns_of(self._trunk, names)
        for name in names:
            device = self._federation.devices[name]
            trace = self._trace(device, turns[name])
            exchange = device.train(order.round, edge_round)
            link = self._link(name, Observe(trace.exchanged))
            talks[name] = Conversation(exchange, link, self._losing(name)), trace
        play = one_by_one if self._trunk == "per-device" else in_lockstep
        play([talk for talk, _ in talks.values()], self._watch.tick)
        for name, (talk, trace) in talks.items():
            if talk.result is not None and talk.result.alone:
                trace.worked(talk.result.alone)
            self._schedule.begin(name, trace.legs)
        return talks

    def _see(self, device: str, leg: Leg, start: float, end: float) -> None:
        self._seen.append(Seen(device, leg, start, end))

    def _draw(self, until: float, average: str) -> None:
        if self._timeline is None:
            return
        for seen in self._seen:
            self._timeline.work(self._edge.name, self._zero, seen, until)
        self._timeline.averaged(self._edge.name, average, self._zero + until)
        self._seen.clear()

    def _link(self, device: str, *layers: Layer) -> InProcess:
        link = Link("device_edge", device, self._edge.name)
        every = (*self._federation.layers, *layers)
        return InProcess(self._edge.handle, link, every, self._edge.lose)

    def _losing(self, device: str) -> Callable[[ElsaError], None]:
        """Tell the edge at once that a device's link broke, so that nobody waits for it."""
        return lambda error: self._edge.lose(device, f"{type(error).__name__}: {error}")

    def _trace(self, device: Device | Attacker, turns: Turns) -> Trace:
        federation = self._federation
        latency = federation.latencies[device.name, self._edge.name]
        return Trace(
            shape=federation.shape,
            split=device.segments.split,
            speed=replace(self._speeds[device.name], latency=latency),
            edge_flops=federation.config.network.edge_gflops * 1e9,
            declared=replace(federation.speeds[device.name], latency=latency),
            turns=turns,
        )

"""An edge server and its devices, played in this process against the virtual clock.

A device's part of an edge round is computed when it begins; the clock says when it is done, and
whether the edge has averaged without it by then.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from elsa.core.buffer import enough
from elsa.engine.clock import Speed, Trace, Turns, turns_of
from elsa.engine.conversation import Conversation, in_lockstep, one_by_one
from elsa.engine.federation import Federation
from elsa.engine.globalround import DeviceRound, Watch
from elsa.engine.schedule import Leg, Schedule
from elsa.engine.timeline import CLOUD, Seen, Timeline
from elsa.errors import ElsaError
from elsa.roles.attacker import Attacker
from elsa.roles.device import Device, Trained
from elsa.roles.edge import Edge
from elsa.wire.inprocess import InProcess
from elsa.wire.layers import Observe
from elsa.wire.messages import EdgeScores, EdgeUpdate, EvaluationOrder, Message, RoundOrder
from elsa.wire.transport import Layer, Link, serve
from elsa.wire.watching import Behaviours, Verdicts


@dataclass
class _Running:
    """How far the edge is with its order."""

    order: RoundOrder
    edge_round: int = 0
    lost: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Work:
    """What a device did that is not done by the clock: rows, mean loss, pace; why it was lost."""

    samples: int
    loss: float
    pace: float
    lost: str = ""


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
        self._work: dict[str, _Work] = {}
        self._schedule = Schedule(self._see if timeline else None)
        self._zero = 0.0
        config = federation.config
        self._buffers = config.aggregate.late == "buffer"
        self._quorum = config.deploy.device_quorum
        self._grace = config.deploy.straggler_seconds

    def answer(self, frame: bytes, at: float, speeds: Mapping[str, Speed]) -> bytes:
        """Answer the cloud, as bytes over the link; see `train` and `evaluate`."""

        def handle(_: str, request: Message) -> Message:
            if isinstance(request, EvaluationOrder):
                return self.evaluate(request)
            assert isinstance(request, RoundOrder | Verdicts)
            return self.train(request, at, speeds)

        return serve(handle, CLOUD, frame)

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
        self._schedule.shift(at - self._zero)
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

    def state(self) -> dict[str, Any]:
        """Work under way after a global round, as plain values for a checkpoint."""
        work = {name: asdict(work) for name, work in self._work.items()}
        return {"zero": self._zero, "work": work, "schedule": self._schedule.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state`."""
        self._zero = state["zero"]
        self._work = {name: _Work(**work) for name, work in state["work"].items()}
        self._schedule.restore(state["schedule"])

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
        lost = self._talk(order, edge_round, names)
        ended, lasted = self._until_enough(len(names))
        late = () if self._buffers else self._schedule.at_work
        for name in late:
            reason = (
                f"late: not done {self._grace:g} simulated s after {self._quorum:.0%} of the "
                "devices were"
            )
            self._edge.drop(name, reason)
            self._work[name] = replace(self._work[name], lost=reason)
            ended[name] = lasted
        if late:
            self._schedule.clear()
        self._draw(lasted, f"average {order.round}.{edge_round}")
        self._schedule.shift(lasted)
        self._zero += lasted
        self.seconds += lasted
        for name in [name for name in order.devices if name in ended]:
            work, edge = self._work.pop(name), self._edge.name
            seen = (work.samples, work.loss, ended[name], work.pace, work.lost)
            self._watch.device(DeviceRound(edge_round, edge, name, *seen))
        return lost.union(late)

    def _until_enough(self, asked: int) -> tuple[dict[str, float], float]:
        """Let work end until an edge round of so many devices does.

        Returns:
            Seconds that each device took that is done, and those that the edge round lasted.
        """
        due, came, ended, lasted, cut = enough(self._quorum, asked), 0, {}, 0.0, math.inf
        while done := self._schedule.done(cut):
            ended[done.device], lasted = done.end - done.began, max(lasted, done.end)
            came += self._edge.arrive(done.device)
            if came >= due and self._buffers:
                break
            if came >= due:
                cut = min(cut, done.end + self._grace)
        return ended, cut if self._schedule.at_work and not self._buffers else lasted

    def _talk(self, order: RoundOrder, edge_round: int, names: list[str]) -> set[str]:
        """Have those who are not at work do their part of an edge round; those lost in it.

        By the clock they begin now, and are done when their legs are.
        """
        talks: dict[str, tuple[Conversation[Trained], Trace]] = {}
        turns, lost = turns_of(self._trunk, names), set()
        for name in [name for name in names if name not in self._schedule.at_work]:
            device = self._federation.devices[name]
            trace = self._trace(device, turns[name])
            exchange = device.train(order.round, edge_round)
            link = self._link(name, Observe(trace.asked, trace.answered))
            talks[name] = Conversation(exchange, link, self._losing(name)), trace
        play = one_by_one if self._trunk == "per-device" else in_lockstep
        play([talk for talk, _ in talks.values()], self._watch.tick)
        for name, (talk, trace) in talks.items():
            if talk.result is not None and talk.result.alone:
                trace.worked(talk.result.alone)
            self._schedule.begin(name, trace.legs)
            if talk.result is None:
                lost.add(name)
                reason = f"{type(talk.error).__name__}: {talk.error}"
                self._work[name] = _Work(0, 0.0, trace.pace, reason)
            else:
                self._work[name] = _Work(talk.result.samples, talk.result.loss, trace.pace)
        return lost

    def _see(self, device: str, leg: Leg, start: float, end: float) -> None:
        self._seen.append(Seen(device, leg, self._zero + start, self._zero + end))

    def _draw(self, lasted: float, average: str) -> None:
        """Draw what is over, and cut off what was given up."""
        if self._timeline is None:
            return
        until, going = self._zero + lasted, []
        for seen in self._seen:
            if self._buffers and seen.end > until:
                going.append(seen)
            else:
                self._timeline.work(self._edge.name, seen, until)
        self._timeline.averaged(self._edge.name, average, until)
        self._seen = going

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

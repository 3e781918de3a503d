"""Simulated time: what a round would take on the declared devices, edges and links.

Computing is operations over speed (`core.cost`), sending is latency plus the bytes really
serialised over bandwidth. `schedule` says when who is done. Evaluation is a measurement and takes
no simulated time.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from elsa.config.schema import Network
from elsa.core.cost import ModelShape, Work, passes_of, step_work
from elsa.core.split import Split
from elsa.engine.legs import Legs
from elsa.engine.schedule import Leg, Part
from elsa.wire.messages import (
    Activations,
    Gradients,
    LabelledActivations,
    Message,
    Ready,
    Update,
)

_LATENCY = int.from_bytes(b"far")
"""Keeps the draw of latencies apart from every other draw of the seed."""

_SLOW = int.from_bytes(b"slow")
"""Likewise of who is slow."""


@dataclass(frozen=True)
class Speed:
    """What a device and its link can do: operations a second, bytes a second, seconds one way."""

    flops: float
    up: float
    down: float
    latency: float


def device_speeds(network: Network, devices: Sequence[str], seed: int) -> dict[str, Speed]:
    """Each device's speed: the declared one times a log-normal factor drawn from the seed.

    Computing and bandwidth draw a factor each; the median of both is 1. The part `network.slow` of
    the devices, drawn apart from that, are `network.slow_factor` times slower in both.
    """
    rng = np.random.default_rng((seed, len(devices)))
    factors = np.exp(network.spread * rng.standard_normal((len(devices), 2)))
    link = network.device_edge
    slow = np.random.default_rng((seed, len(devices), _SLOW)).permutation(len(devices))
    factors[slow[: round(network.slow * len(devices))]] /= network.slow_factor
    return {
        device: Speed(
            flops=network.device_gflops * 1e9 * float(compute),
            up=_bytes_per_second(link.up_mbps) * float(width),
            down=_bytes_per_second(link.down_mbps) * float(width),
            latency=link.latency_ms / 1e3,
        )
        for device, (compute, width) in zip(devices, factors, strict=True)
    }


def centre(network: Network) -> Speed:
    """A machine beside the server, as quick as an edge; nothing is sent to it."""
    return Speed(network.edge_gflops * 1e9, math.inf, math.inf, 0.0)


def latencies(
    network: Network, devices: Sequence[str], edges: Sequence[str], seed: int
) -> dict[tuple[str, str], float]:
    """Seconds one way between each device and each edge: the declared ones times a factor.

    The factor is log-normal with median 1, drawn from the seed apart from the speeds.
    """
    rng = np.random.default_rng((seed, len(devices), len(edges), _LATENCY))
    factors = np.exp(network.latency_spread * rng.standard_normal((len(devices), len(edges))))
    seconds = network.device_edge.latency_ms / 1e3
    return {
        (device, edge): seconds * float(factors[row, column])
        for row, device in enumerate(devices)
        for column, edge in enumerate(edges)
    }


def drifted(
    speeds: Mapping[str, Speed], network: Network, seed: int, round_: int
) -> Mapping[str, Speed]:
    """The speeds as they are in a round: each is on a random walk from the declared one.

    Computing and bandwidth each gain a log-normal factor of sigma `network.drift` a round; what a
    round's factors are follows from the seed.
    """
    if not network.drift or not round_:
        return speeds
    rng = np.random.default_rng((seed, *b"drift"))
    walked = np.exp(network.drift * rng.standard_normal((round_, len(speeds), 2)).sum(0))
    return {
        device: replace(
            speed,
            flops=speed.flops * float(compute),
            up=speed.up * float(width),
            down=speed.down * float(width),
        )
        for (device, speed), (compute, width) in zip(speeds.items(), walked, strict=True)
    }


def cloud_seconds(network: Network, up: int, down: int) -> float:
    """Seconds to send `down` bytes from the cloud to an edge and `up` bytes back."""
    link = network.edge_cloud
    return (
        2 * link.latency_ms / 1e3
        + up / _bytes_per_second(link.up_mbps)
        + down / _bytes_per_second(link.down_mbps)
    )


def order_seconds(network: Network, down: int) -> float:
    """Seconds until `down` bytes from the cloud are at an edge."""
    link = network.edge_cloud
    return link.latency_ms / 1e3 + down / _bytes_per_second(link.down_mbps)


def _bytes_per_second(mbps: float) -> float:
    return mbps * 1e6 / 8


@dataclass(frozen=True)
class Turns:
    """How the local steps of an edge's devices wait for each other there.

    A step may begin when all those of the turn before have ended. Where devices step together, a
    step of all is a turn; where they step one by one, each device's step is.

    Attributes:
        each: turns in a local step; 0 where nobody waits.
        place: of the device among them.
    """

    each: int = 0
    place: int = 0

    def after(self, step: int) -> int:
        """Number of the turn that must have ended before this step; 0 for none."""
        return step * self.each + self.place

    def passes(self, step: int) -> int:
        """Number of the turn that this step is part of; 0 where nobody waits."""
        return self.after(step) + 1 if self.each else 0


FREE = Turns()


@dataclass(frozen=True)
class _Names:
    """What an exchange's parts are called."""

    up: str
    down: str
    device: str = ""
    edge: str = ""


_NAMES: Mapping[type[Message], _Names] = {
    Ready: _Names("ready", "adapters"),
    Activations: _Names("h1", "h2", "bottom forward", "trunk forward"),
    Gradients: _Names("g2", "g1", "top", "trunk backward"),
    LabelledActivations: _Names("h1 and labels", "g1", "bottom forward", "trunk and head"),
    Update: _Names("adapters", "accepted"),
}

_BACKWARD = "bottom backward"


def turns_of(trunk: str, devices: Sequence[str]) -> dict[str, Turns]:
    """How devices of an edge, in their order, wait for each other, by the owner of its trunk."""
    if trunk == "sequential":
        return {name: Turns(len(devices), place) for place, name in enumerate(devices)}
    return dict.fromkeys(devices, Turns(1) if trunk == "shared" else FREE)


@dataclass
class _Asked:
    """A request without an answer: its bytes, and whether others were asked besides it."""

    request: Message
    up: int
    ahead: bool = False


@dataclass
class Trace:
    """A device's edge round as legs, written down frame by frame.

    Attributes:
        declared: the speed that the plan knows of, by which `pace` judges; None takes `speed`.
        turns: how a local step waits for those of others.
    """

    shape: ModelShape
    split: Split
    speed: Speed
    edge_flops: float
    declared: Speed | None = None
    turns: Turns = FREE
    _legs: Legs = field(default_factory=Legs)
    _waiting: deque[_Asked] = field(default_factory=deque)
    _owed: float = 0.0
    _expected: float = 0.0
    _works: dict[int, Work] = field(default_factory=dict)

    @property
    def legs(self) -> list[Leg]:
        """What was written down."""
        return self._legs.legs

    @property
    def pace(self) -> float:
        """Seconds that the device and its link took, to those that the declared speed says."""
        own = sum(leg.seconds for leg in self.legs if leg.place == "free")
        return own / self._expected if self._expected else 1.0

    def worked(self, steps: Sequence[Sequence[int]]) -> None:
        """Add what the device did by itself in steps that sent no gradient down.

        That is all of them where it has the whole model, and those of its top otherwise.

        Args:
            steps: tokens of each text of each.
        """
        works = (step_work(self.shape, self.split, passes_of(self.shape, [it])) for it in steps)
        whole = self.split.layout == "whole"
        flops = sum(work.device if whole else work.top for work in works)
        seconds = flops / self.speed.flops
        what = f"{len(steps)} local steps"
        self._legs.in_turn(Leg("free", seconds, parts=(Part("device", what, seconds),)))
        self._expected += flops / self._known.flops

    def asked(self, request: Message, up: int) -> None:
        """The device sent a request of so many bytes."""
        self._waiting.append(_Asked(request, up))
        if len(self._waiting) > 1:
            for asked in self._waiting:
                self._ahead(asked)

    def answered(self, request: Message, down: int) -> None:
        """The earliest request without an answer got one of so many bytes."""
        asked = self._waiting.popleft()
        if not asked.ahead:
            self._exchanged(request, asked.up, down)
            return
        names, busy = _names_of(request), self._busy(request)
        self._legs.receive(busy, names.down, down / self.speed.down, self.speed.latency)
        owed = self._owed_after(request)
        if owed:
            self._legs.compute(_BACKWARD, owed / self.speed.flops)
        self._expected += back(self._known, down) + owed / self._known.flops

    def _ahead(self, asked: _Asked) -> None:
        """Write down a request that does not have the device to itself until it is answered."""
        if asked.ahead:
            return
        asked.ahead = True
        owed, self._owed = self._owed, 0.0
        here, names = self._here(asked.request), _names_of(asked.request)
        if owed:
            self._legs.compute(_BACKWARD, owed / self.speed.flops)
        if here:
            self._legs.compute(names.device, here / self.speed.flops)
        self._legs.send(names.up, asked.up / self.speed.up, self.speed.latency)
        self._expected += there(self._known, owed + here, asked.up)

    def _exchanged(self, request: Message, up: int, down: int) -> None:
        """Write down a request with its answer, while the device waited."""
        owed, here, names = self._owed, self._here(request), _names_of(request)
        busy, flops = self._busy(request), owed + here
        self._legs.in_turn(
            Leg(
                "free",
                there(self.speed, flops, up),
                parts=(
                    Part("device", _BACKWARD, owed / self.speed.flops),
                    Part("device", names.device, here / self.speed.flops),
                    Part("up", names.up, there(self.speed, 0, up)),
                ),
            ),
            busy,
            Leg(
                "free",
                back(self.speed, down),
                parts=(Part("down", names.down, back(self.speed, down)),),
            ),
        )
        self._owed = self._owed_after(request)
        self._expected += there(self._known, flops, up) + back(self._known, down)

    @property
    def _known(self) -> Speed:
        return self.declared or self.speed

    def _here(self, request: Message) -> float:
        """Operations of the device before it sends this."""
        part, here = _micro_batch(request), 0.0
        if isinstance(request, Activations | LabelledActivations):
            passed = passes_of(self.shape, [request.lengths])
            self._works[part] = step_work(self.shape, self.split, passed)
            here += self._works[part].bottom
        if isinstance(request, Gradients | LabelledActivations) and part in self._works:
            here += self._works[part].top
        return here

    def _busy(self, request: Message) -> Leg:
        """The edge's work on this, and what of it waits for others."""
        work, lane, after, passes = self._works.get(_micro_batch(request)), 0.0, 0, 0
        if isinstance(request, Activations | LabelledActivations) and work:
            lane += work.trunk
            after = self.turns.after(request.step)
        if isinstance(request, Gradients | LabelledActivations) and work:
            lane += work.trunk_backward
            passes = self.turns.passes(request.step)
        busy = Part("edge", _names_of(request).edge, lane / self.edge_flops)
        return Leg("edge", busy.seconds, after, passes, (busy,))

    def _owed_after(self, request: Message) -> float:
        """Operations of the device once this is answered."""
        work = self._works.get(_micro_batch(request))
        ends = isinstance(request, Gradients | LabelledActivations)
        return work.bottom_backward if ends and work else 0.0


def _micro_batch(request: Message) -> int:
    return request.micro_batch if isinstance(request, Activations | Gradients) else 0


def _names_of(request: Message) -> _Names:
    return _NAMES.get(type(request), _Names(type(request).__name__.lower(), "answer"))


def there(speed: Speed, flops: float, size: float) -> float:
    """Seconds to compute so many operations on a device and send so many bytes."""
    return flops / speed.flops + speed.latency + size / speed.up


def back(speed: Speed, size: float) -> float:
    """Seconds until so many bytes have come to a device."""
    return speed.latency + size / speed.down

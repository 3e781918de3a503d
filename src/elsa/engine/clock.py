"""Simulated time: what a round would take on the declared devices, edges and links.

Computing is operations over speed (`core.cost`), sending is latency plus the bytes really
serialised over bandwidth. Devices of an edge compute at once; the edge has one compute lane, first
come first served. Evaluation is a measurement and takes no simulated time.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

import numpy as np

from elsa.config.schema import Network
from elsa.core.cost import ModelShape, block_backward_flops, block_flops, head_flops
from elsa.core.split import Split
from elsa.wire.messages import Activations, Gradients, Message

_LATENCY = int.from_bytes(b"far")
"""Keeps the draw of latencies apart from every other draw of the seed."""


@dataclass(frozen=True)
class Speed:
    """What a device and its link can do: operations a second, bytes a second, seconds one way."""

    flops: float
    up: float
    down: float
    latency: float


def device_speeds(network: Network, devices: Sequence[str], seed: int) -> dict[str, Speed]:
    """Each device's speed: the declared one times a log-normal factor drawn from the seed.

    Computing and bandwidth draw a factor each; the median of both is 1.
    """
    rng = np.random.default_rng((seed, len(devices)))
    factors = np.exp(network.spread * rng.standard_normal((len(devices), 2)))
    link = network.device_edge
    return {
        device: Speed(
            flops=network.device_gflops * 1e9 * float(compute),
            up=_bytes_per_second(link.up_mbps) * float(width),
            down=_bytes_per_second(link.down_mbps) * float(width),
            latency=link.latency_ms / 1e3,
        )
        for device, (compute, width) in zip(devices, factors, strict=True)
    }


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


def cloud_seconds(network: Network, up: int, down: int) -> float:
    """Seconds to send `down` bytes from the cloud to an edge and `up` bytes back."""
    link = network.edge_cloud
    return (
        2 * link.latency_ms / 1e3
        + up / _bytes_per_second(link.up_mbps)
        + down / _bytes_per_second(link.down_mbps)
    )


def _bytes_per_second(mbps: float) -> float:
    return mbps * 1e6 / 8


@dataclass(frozen=True)
class Leg:
    """A stretch of a device's time: its own or the link's ("free"), or on the edge's lane.

    Attributes:
        after: the leg cannot start before all devices have passed `passes` of this number.
        passes: number that this leg's end counts towards.
    """

    place: Literal["free", "edge"]
    seconds: float
    after: int = 0
    passes: int = 0


@dataclass
class Trace:
    """A device's edge round as legs, written down exchange by exchange.

    Attributes:
        lockstep: whether a local step starts at the edge only when all have done the last one.
    """

    shape: ModelShape
    split: Split
    speed: Speed
    edge_flops: float
    lockstep: bool = False
    legs: list[Leg] = field(default_factory=list)
    _owed: float = 0.0
    _forward: float = 0.0
    _backward: float = 0.0
    _head: float = 0.0

    def exchanged(self, request: Message, up: int, down: int) -> None:
        """Add an exchange that sent `up` bytes and received `down` bytes."""
        here, there, after, passes = self._owed, 0.0, 0, 0
        self._owed = 0.0
        if isinstance(request, Activations):
            self._forward = block_flops(self.shape, request.lengths)
            self._backward = block_backward_flops(self.shape, request.lengths)
            self._head = head_flops(self.shape, request.lengths)
            here += self.split.bottom * self._forward
            there = self.split.trunk * self._forward
            after = request.step if self.lockstep else 0
        elif isinstance(request, Gradients):
            here += self.split.top * (self._forward + self._backward) + 2 * self._head
            there = self.split.trunk * self._backward
            passes = request.step + 1 if self.lockstep else 0
            self._owed = self.split.bottom * self._backward
        speed = self.speed
        self.legs += [
            Leg("free", here / speed.flops + speed.latency + up / speed.up),
            Leg("edge", there / self.edge_flops, after, passes),
            Leg("free", speed.latency + down / speed.down),
        ]


def finish_times(traces: Sequence[Sequence[Leg]]) -> list[float]:
    """When each device has done its legs, in seconds from the start of the edge round."""
    ends = [0.0] * len(traces)
    lane = 0.0
    due = Counter(leg.passes for trace in traces for leg in trace if leg.passes)
    parked: dict[int, list[tuple[int, int]]] = {}
    ticket = count()  # of two that are ready at once, the first to have come goes first
    queue = [(0.0, next(ticket), device, 0, 0) for device in range(len(traces))]
    while queue:
        now, _, device, number, passed = heapq.heappop(queue)
        if passed:
            due[passed] -= 1
            for waiting in () if due[passed] else parked.pop(passed, ()):
                heapq.heappush(queue, (now, next(ticket), *waiting, 0))
        if number == len(traces[device]):
            ends[device] = now
            continue
        leg = traces[device][number]
        if due[leg.after]:
            parked.setdefault(leg.after, []).append((device, number))
            continue
        if leg.place == "edge":
            now = lane = max(lane, now) + leg.seconds
        else:
            now += leg.seconds
        heapq.heappush(queue, (now, next(ticket), device, number + 1, leg.passes))
    return ends

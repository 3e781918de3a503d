"""The byte meter: counts what was really serialised, and what it would have cost plainly."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from elsa.wire.messages import (
    Activations,
    EdgeUpdate,
    EvaluationOrder,
    Gradients,
    LabelledActivations,
    LocalPlan,
    RoundOrder,
    Update,
)
from elsa.wire.transport import Direction, Link, Passage, Tier

Phase = Literal["train", "evaluate"]

_HOPS: Mapping[tuple[Tier, Direction], str] = {
    ("device_edge", "up"): "device_to_edge",
    ("device_edge", "down"): "edge_to_device",
    ("edge_cloud", "up"): "edge_to_cloud",
    ("edge_cloud", "down"): "cloud_to_edge",
}
_FLOAT32 = 4


@dataclass(frozen=True)
class Traffic:
    """What passed.

    Attributes:
        frames: number of frames.
        bytes: their size, as serialised.
        padded: size in bytes of the tensors in them as padded float32: 4 B S D for hidden states
            and gradients (B sequences, S tokens of the longest, D hidden size), 4 bytes a value
            for adapters; nothing is reckoned for the rest of a frame.
    """

    frames: int = 0
    bytes: int = 0
    padded: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.frames + other.frames, self.bytes + other.bytes, self.padded + other.padded
        )


@dataclass(frozen=True)
class Flow:
    """What the traffic is counted by.

    Attributes:
        tier: kind of link.
        below: name of the link's lower end: a device, or an edge server towards the cloud.
        direction: up or down.
        kind: name of the message class.
        phase: what the federation was doing.
    """

    tier: Tier
    below: str
    direction: Direction
    kind: str
    phase: Phase


class Meter:
    """A layer that counts; one serves all links.

    Set `phase` when evaluation begins and ends. Safe to share between threads.
    """

    def __init__(self) -> None:
        self.phase: Phase = "train"
        self._flows: dict[Flow, Traffic] = {}
        self._batches: dict[tuple[Link, int], tuple[int, int]] = {}
        self._lock = threading.Lock()

    def __call__(self, passage: Passage) -> bytes:
        """Count the frame; it passes unchanged."""
        link, message = passage.link, passage.message
        flow = Flow(link.tier, link.below, passage.direction, type(message).__name__, self.phase)
        with self._lock:
            more = Traffic(1, len(passage.data), self._padded(passage))
            self._flows[flow] = self._flows.get(flow, Traffic()) + more
        return passage.data

    def total(self, **where: str) -> Traffic:
        """Sum over the flows whose fields have these values: `total(below="device-3")`."""
        return self.totals(**where).get((), Traffic())

    def totals(self, *by: str, **where: str) -> dict[tuple[str, ...], Traffic]:
        """Sums for each combination of the fields `by`, in one pass: `totals("below")`."""
        unknown = {*by, *where} - {field.name for field in fields(Flow)}
        if unknown:
            raise TypeError(f"traffic is not counted by {', '.join(sorted(unknown))}")
        with self._lock:
            flows = list(self._flows.items())
        sums: dict[tuple[str, ...], Traffic] = {}
        for flow, traffic in flows:
            if all(getattr(flow, name) == value for name, value in where.items()):
                key = tuple(getattr(flow, name) for name in by)
                sums[key] = sums.get(key, Traffic()) + traffic
        return sums

    def by_hop(self, **where: str) -> dict[str, int]:
        """Bytes by hop and direction, and all of it as padded float32; chosen as in `total`."""
        sums = self.totals("tier", "direction", **where)
        hops = {name: sums.get(hop, Traffic()).bytes for hop, name in _HOPS.items()}
        padded = sum(traffic.padded for traffic in sums.values())
        return hops | {"uncompressed_padded_float32": padded}

    def state(self) -> list[dict[str, Any]]:
        """All counts, as plain values for a checkpoint."""
        with self._lock:
            return [asdict(flow) | asdict(traffic) for flow, traffic in self._flows.items()]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Go on from an earlier `state`; what was counted since is forgotten."""
        with self._lock:
            self._flows = {}
        self.add(state)

    def add(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Count also what another meter has counted, by its `state`."""
        with self._lock:
            for row in state:
                flow = _take(Flow, row)
                self._flows[flow] = self._flows.get(flow, Traffic()) + _take(Traffic, row)

    def _padded(self, passage: Passage) -> int:
        part: int = getattr(passage.message, "micro_batch", 0)
        match passage.message:
            case (
                Activations(lengths=lengths, packet=packet)
                | LabelledActivations(lengths=lengths, packet=packet)
            ) if passage.direction == "up":
                self._batches[passage.link, part] = (len(lengths), max(lengths))
                values = len(lengths) * max(lengths) * packet.shape[1]
            case Activations(packet=packet) | Gradients(packet=packet):  # all of that step's tokens
                rows, width = self._batches.get((passage.link, part), (1, packet.shape[0]))
                values = rows * width * packet.shape[1]
            case LocalPlan() | Update() | RoundOrder() | EdgeUpdate() | EvaluationOrder() as held:
                values = sum(math.prod(tensor.shape) for tensor in held.adapters.values())
            case _:
                values = 0
        return values * _FLOAT32


def _take(kind: type[Any], row: Mapping[str, Any]) -> Any:
    return kind(**{field.name: row[field.name] for field in fields(kind)})

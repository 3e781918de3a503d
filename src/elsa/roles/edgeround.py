"""An order that an edge server carries out: how far its devices are, and what they sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from elsa.core.aggregate import Mean, NewMean
from elsa.core.split import Split
from elsa.model.adapters import head_of
from elsa.roles.parcel import Sent, wrap
from elsa.roles.session import Session
from elsa.wire.messages import (
    DeviceReport,
    DeviceScore,
    EdgeScores,
    EdgeUpdate,
    EvaluationOrder,
    HeadWeight,
    RoundOrder,
)


@dataclass
class Standing:
    """A device in a round.

    Attributes:
        rows: training rows it holds.
        samples: rows it trained on so far.
        loss: sum over these samples, in nats.
        lost: why it was left out; empty while it takes part.
        head: name of its task.
    """

    rows: int = 0
    samples: int = 0
    loss: float = 0.0
    lost: str = ""
    head: str = ""


@dataclass(frozen=True)
class Learned:
    """What a device says that it did in an edge round.

    Attributes:
        rows: training rows it holds; its weight, if it is trusted wholly.
        samples: rows it trained on.
        loss: mean over these samples, in nats.
        head: name of its task.
    """

    rows: int
    samples: int
    loss: float
    head: str


@dataclass(frozen=True)
class Held:
    """An update that is to count, after its verdict or at its time on a virtual clock.

    Attributes:
        adapters: the device's own.
        split: of the device.
        learned: what comes with them.
    """

    adapters: Mapping[str, Tensor]
    split: Split
    learned: Learned


@dataclass
class EdgeRound:
    """An open order.

    Attributes:
        order: what the cloud asked for.
        adapters: that the present edge round starts from.
        mean: of the present edge round.
        edge_round: the present one, from 0.
        weight: behind the last average.
        heads: weight behind the head of each task, of its last average.
        sessions: of devices that are at it.
        finished: devices that are done with the edge round.
        held: updates that wait.
        weights: of the devices that count in the present average.
        standings: of all devices that were asked to take part.
        scores: in an evaluation.
    """

    order: RoundOrder | EvaluationOrder
    adapters: dict[str, Tensor]
    mean: Mean
    edge_round: int = 0
    weight: float = 0.0
    heads: dict[str, float] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    held: dict[str, Held] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    standings: dict[str, Standing] = field(default_factory=dict)
    scores: dict[str, DeviceScore] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.standings = {device: Standing() for device in self.order.devices}

    @property
    def remaining(self) -> list[str]:
        """Devices that were not lost."""
        return [name for name, standing in self.standings.items() if not standing.lost]

    def finish(self, peer: str, rows: int) -> None:
        """A device is done with the edge round, and has told of its rows."""
        del self.sessions[peer]
        self.standings[peer].rows = rows
        self.finished.add(peer)

    def count(self, peer: str, learned: Learned) -> None:
        """What a device did counts for the order."""
        standing = self.standings[peer]
        standing.head, standing.rows = learned.head, learned.rows
        standing.samples += learned.samples
        standing.loss += learned.loss * learned.samples

    def average(self, new_mean: NewMean) -> None:
        """Take the mean of what counts; the next edge round begins, with this for its mean."""
        if self.weights:  # else nothing was averaged: what the edge round before gave stands
            self.weight = sum(self.weights.values())
        self.heads |= self._weight_by_head()
        self.adapters = self.mean.result(otherwise=self.adapters)
        self.mean = new_mean()
        for gone in (self.sessions, self.finished, self.held, self.weights):
            gone.clear()
        self.edge_round += 1

    def outcome(self, sent: Sent) -> EdgeUpdate | EdgeScores:
        """What the devices learned, or how well they did; adapters travel as `sent`."""
        if isinstance(self.order, EvaluationOrder):
            return EdgeScores(self.order.round, tuple(self.scores.values()))
        reports = tuple(
            DeviceReport(name, it.rows, it.samples, it.loss / max(it.samples, 1), it.lost)
            for name, it in self.standings.items()
        )
        known = ("", *self.heads)
        learned = {name: it for name, it in self.adapters.items() if head_of(name) in known}
        heads = tuple(HeadWeight(head, rows) for head, rows in self.heads.items())
        return EdgeUpdate(self.order.round, wrap(learned, sent), self.weight, reports, heads)

    def _weight_by_head(self) -> dict[str, float]:
        """Weight behind the head of each task in this edge round, sorted by task."""
        behind: dict[str, float] = {}
        for peer, weight in self.weights.items():
            head = self.standings[peer].head
            behind[head] = behind.get(head, 0.0) + weight
        return {head: behind[head] for head in sorted(behind) if head}

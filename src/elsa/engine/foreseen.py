"""An edge round of a device as a plan foresees it: the legs that the virtual clock would see."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field

from elsa.core.cost import Work
from elsa.engine.clock import Speed, back, there
from elsa.engine.legs import Legs
from elsa.engine.schedule import Leg, finish_times


@dataclass(frozen=True)
class Frames:
    """Bytes of the four frames of a local step, or of a micro-batch."""

    h1: float
    h2: float
    g2: float
    g1: float

    @property
    def up(self) -> float:
        """From the device."""
        return self.h1 + self.g2

    @property
    def down(self) -> float:
        """To the device."""
        return self.h2 + self.g1


@dataclass
class Foreseen:
    """Legs, written down from operations and bytes.

    Attributes:
        speed: of the device and its link.
        pace: how many times as long both take.
        edge_flops: operations a second of the edge.
        owed: operations that the device does before it asks again.
    """

    speed: Speed
    pace: float
    edge_flops: float
    owed: float = 0.0
    _legs: Legs = field(default_factory=Legs)

    @property
    def legs(self) -> list[Leg]:
        """What was written down."""
        return self._legs.legs

    def exchange(
        self, here: float, up: float, lane: float, down: float, after: int = 0, passes: int = 0
    ) -> None:
        """A request and its answer, for which the device waits; `here` operations come before."""
        flops, self.owed = self.owed + here, 0.0
        self._legs.in_turn(
            Leg("free", self.pace * there(self.speed, flops, up)),
            Leg("edge", lane / self.edge_flops, after, passes),
            Leg("free", self.pace * back(self.speed, down)),
        )

    def in_flight(self, works: Sequence[Work], frames: Sequence[Frames]) -> None:
        """A local step of so many micro-batches that are under way at once."""
        if self.owed:
            self._compute(self.owed)
            self.owed = 0.0
        for work, sent in zip(works, frames, strict=True):
            self._compute(work.bottom)
            self._send(sent.h1)
        for work, sent in zip(works, frames, strict=True):
            self._receive(work.trunk, sent.h2)
            self._compute(work.top)
            self._send(sent.g2)
        for work, sent in zip(works, frames, strict=True):
            self._receive(work.trunk_backward, sent.g1)
            self._compute(work.bottom_backward)

    def _compute(self, flops: float) -> None:
        self._legs.compute("", self.pace * flops / self.speed.flops)

    def _send(self, size: float) -> None:
        speed = self.speed
        self._legs.send("", self.pace * size / speed.up, self.pace * speed.latency)

    def _receive(self, lane: float, size: float) -> None:
        busy, speed = Leg("edge", lane / self.edge_flops), self.speed
        self._legs.receive(busy, "", self.pace * size / speed.down, self.pace * speed.latency)


def step_seconds(foreseen: Foreseen, work: Work, frames: Frames, in_flight: int) -> float:
    """What a local step takes alone, in so many equal micro-batches.

    Args:
        foreseen: to write it down in.
        work, frames: of the whole batch.
        in_flight: micro-batches.
    """
    parts = Work(*(it / in_flight for it in astuple(work)))
    sent = Frames(*(it / in_flight for it in astuple(frames)))
    foreseen.in_flight([parts] * in_flight, [sent] * in_flight)
    return finish_times([foreseen.legs])[0]

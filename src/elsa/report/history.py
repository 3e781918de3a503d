"""What a run's events say, by round; what cannot be drawn is left out."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from elsa.record import events
from elsa.record.reading import RunRecord
from elsa.report.curves import Curve
from elsa.report.numbers import clean, number

HOPS = {
    "device_to_edge": "device to edge",
    "edge_to_device": "edge to device",
    "edge_to_cloud": "edge to cloud",
    "cloud_to_edge": "cloud to edge",
}
PADDED = "uncompressed_padded_float32"
SCORES = ("accuracy", "accuracy_mean_device", "accuracy_worst_device", "perplexity", "answers")
UNITS = ("token", "label", "device")
"""What noise protects one of; see `record.events.NoiseSpent`."""
LAST = 10**9
"""A round beyond it is taken for damage."""

ByRound = dict[int, float]


@dataclass(frozen=True)
class History:
    """A run by round.

    Attributes:
        index: of the run in the page: its colour, dash and mark.
        label: its name in the page, of its own.
        record: where it comes from.
        measured: by name, then by round: "loss", "samples", "simulated", "wall", the hops, what
            was evaluated, "task NAME" for the accuracy of each of several tasks, and
            "epsilon UNIT".
        devices: by name, then by (round, edge round): what a device reported.
        edges: the edge that each device was last seen at.
    """

    index: int
    label: str
    record: RunRecord
    measured: dict[str, ByRound] = field(default_factory=lambda: defaultdict(dict))
    devices: dict[str, dict[tuple[int, int], events.DeviceFinished]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    edges: dict[str, str] = field(default_factory=dict)

    def curve(self, name: str) -> Curve:
        """A measure over rounds, counted from 1."""
        points = [(round_ + 1.0, value) for round_, value in sorted(self.measured[name].items())]
        return Curve(self.index, self.label, points)

    def total(self, name: str) -> float | None:
        """The sum of a measure over all rounds; None if it was never taken."""
        values = self.measured[name].values()
        return sum(values) if values else None

    def last(self, name: str) -> float | None:
        """A measure's last value; None if it was never taken."""
        rounds = self.measured[name]
        return rounds[max(rounds)] if rounds else None

    def so_far(self, names: Sequence[str]) -> ByRound:
        """The sum of some measures up to each round."""
        total, found = 0.0, {}
        for round_ in sorted({it for name in names for it in self.measured[name]}):
            total += sum(self.measured[name].get(round_, 0.0) for name in names)
            found[round_] = total
        return found

    @property
    def done(self) -> int:
        """Rounds that ended."""
        return len(self.measured["loss"])

    @property
    def planned(self) -> int | None:
        """Rounds that the run was to have; None if its config does not say."""
        federation = self.record.manifest.config.get("federation")
        rounds = federation.get("rounds") if isinstance(federation, dict) else None
        return rounds if isinstance(rounds, int) else None

    @cached_property
    def poisoned(self) -> frozenset[str]:
        """Devices that the simulator poisoned in some round."""
        found = [it.devices for it in self.record.events if isinstance(it, events.Poisoned)]
        return frozenset(name for names in found for name in names)


def histories(records: Sequence[RunRecord]) -> list[History]:
    """A history for each run, labelled by its folder, and numbered where two have one name."""
    labels: list[str] = []
    for record in records:
        name = clean(Path(record.path).resolve().name or record.manifest.name, 48)
        taken = sum(it == name or it.startswith(f"{name} (") for it in labels)
        labels.append(f"{name} ({taken + 1})" if taken else name)
    return [_history(*pair) for pair in enumerate(zip(labels, records, strict=True))]


def _history(index: int, named: tuple[str, RunRecord]) -> History:
    made = History(index, *named)
    for event in made.record.events:
        if -1 <= event.round < LAST:
            _take(made, event)
    return made


def _take(made: History, event: events.Event) -> None:
    def put(name: str, value: object) -> None:
        if (found := number(value)) is not None:
            made.measured[name][event.round] = found

    match event:
        case events.RoundFinished():
            put("loss", event.loss)
            put("samples", event.samples)
            put("wall", event.wall_seconds)
            put("simulated", event.simulated_seconds)
            for hop in (*HOPS, PADDED):
                put(hop, event.bytes.get(hop))
        case events.Evaluated():
            put("test loss", event.loss)
            for name in SCORES:
                put(name, getattr(event, name))
        case events.TaskEvaluated():
            put(f"task {event.task}", event.accuracy)
        case events.NoiseSpent() if event.unit in UNITS:
            put(f"epsilon {event.unit}", event.epsilon)
        case events.DeviceFinished() if 0 <= event.edge_round < LAST:
            made.devices[event.device][event.round, event.edge_round] = event
            made.edges[event.device] = event.edge
        case events.DevicePlaced():
            made.edges[event.device] = event.edge
        case _:
            pass

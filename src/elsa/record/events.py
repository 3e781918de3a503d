"""Everything that happens in a run and is worth a line of events.jsonl.

A global round counts from 0. Simulated seconds are those of the virtual clock. A resumed run
goes on with the log of the last checkpoint, so RunStarted comes once, and CheckpointSaved is to
be written again after resuming, because it follows the checkpoint that the log was cut to.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter


@dataclass(frozen=True)
class RunStarted:
    """The run begins with a first round."""

    round: int
    rounds: int
    devices: int
    edges: int
    kind: Literal["run_started"] = "run_started"


@dataclass(frozen=True)
class RoundStarted:
    """A global round of so many edge rounds begins; `devices` take part, by name."""

    round: int
    devices: tuple[str, ...]
    edge_rounds: int = 1
    kind: Literal["round_started"] = "round_started"


@dataclass(frozen=True)
class Poisoned:
    """Devices of this round that the simulator poisons with an attack; no party is told."""

    round: int
    attack: str
    devices: tuple[str, ...]
    kind: Literal["poisoned"] = "poisoned"


@dataclass(frozen=True)
class SplitsChosen:
    """Devices have a new split from this round on: p, o and q by name."""

    round: int
    splits: dict[str, tuple[int, int, int]]
    kind: Literal["splits_chosen"] = "splits_chosen"


@dataclass(frozen=True)
class DeviceFinished:
    """A device ended an edge round; `loss` is its mean training loss over `samples` rows."""

    round: int
    edge_round: int
    edge: str
    device: str
    samples: int
    loss: float
    simulated_seconds: float
    kind: Literal["device_finished"] = "device_finished"


@dataclass(frozen=True)
class DeviceLost:
    """A device did not end the round it was asked to take part in."""

    round: int
    edge: str
    device: str
    reason: str
    kind: Literal["device_lost"] = "device_lost"


@dataclass(frozen=True)
class EdgeFinished:
    """An edge reported its average over `devices` to the cloud."""

    round: int
    edge: str
    devices: tuple[str, ...]
    simulated_seconds: float
    kind: Literal["edge_finished"] = "edge_finished"


@dataclass(frozen=True)
class RoundFinished:
    """A global round ended; the numbers are of this round alone, bytes by hop."""

    round: int
    loss: float
    samples: int
    wall_seconds: float
    simulated_seconds: float
    bytes: dict[str, int]
    kind: Literal["round_finished"] = "round_finished"


@dataclass(frozen=True)
class Evaluated:
    """The global adapters were evaluated after a round; None is what could not be measured.

    `answers` is the share of answers without a wrong token, for a language model that learns them.
    """

    round: int
    loss: float | None
    accuracy: float | None = None
    accuracy_mean_device: float | None = None
    accuracy_worst_device: float | None = None
    perplexity: float | None = None
    answers: float | None = None
    kind: Literal["evaluated"] = "evaluated"


@dataclass(frozen=True)
class TaskEvaluated:
    """The global adapters and the head of one of several tasks were evaluated after a round."""

    round: int
    task: str
    loss: float
    accuracy: float
    kind: Literal["task_evaluated"] = "task_evaluated"


@dataclass(frozen=True)
class DeviceEvaluated:
    """The global adapters were evaluated on a device's own held-out rows, or tokens of answers.

    Attributes:
        items: predictions made.
        correct: how many were right.
    """

    round: int
    device: str
    items: int
    correct: int
    kind: Literal["device_evaluated"] = "device_evaluated"


@dataclass(frozen=True)
class NoiseSpent:
    """What the noise of all rounds so far is worth, for the device that sent most often.

    Attributes:
        unit: what is protected by it: "token", "label" or "device"; see `core.noise`.
        releases: how often something of one unit left the device, at most.
        epsilon: for `delta`.
    """

    round: int
    unit: str
    releases: int
    epsilon: float
    delta: float
    kind: Literal["noise_spent"] = "noise_spent"


@dataclass(frozen=True)
class DevicePlaced:
    """A device was given an edge, or none (then `edge` is empty), and why.

    `round` is the one after which it was decided, -1 before the first; `before` is its edge until
    then; `cluster` is -1 without one; `cost` is that of the assignment.
    """

    round: int
    device: str
    edge: str
    before: str
    cluster: int
    cost: float
    why: str
    kind: Literal["device_placed"] = "device_placed"


@dataclass(frozen=True)
class Clustered:
    """Devices were clustered after a round; `file` in the run directory has more."""

    round: int
    clusters: int
    moved: int
    left_out: int
    file: str
    kind: Literal["clustered"] = "clustered"


@dataclass(frozen=True)
class DeviceJudged:
    """How a device stands after an edge round that was watched.

    Attributes:
        cluster: its own; -1 if it has none.
        step: agreement of its update with those of others at its task, -1 to 1 or so.
        prediction: the same for how its predictions on the probes moved.
        trust: smoothed over edge rounds, 0 to 1.
        weight: what its rows were multiplied by in this average; 0 if it was cut.
        reason: why it is not fully trusted; empty if it is.
    """

    round: int
    edge_round: int
    device: str
    cluster: int
    step: float
    prediction: float
    trust: float
    weight: float
    reason: str = ""
    kind: Literal["device_judged"] = "device_judged"


@dataclass(frozen=True)
class CheckpointSaved:
    """The state after a round lies whole on the disk."""

    round: int
    kind: Literal["checkpoint_saved"] = "checkpoint_saved"


@dataclass(frozen=True)
class Interrupted:
    """The person asked to stop; `round` is that of the last checkpoint."""

    round: int
    kind: Literal["interrupted"] = "interrupted"


@dataclass(frozen=True)
class RunFinished:
    """The run ended after its last round; `summary` is what summary.json holds."""

    round: int
    summary: dict[str, Any]
    kind: Literal["run_finished"] = "run_finished"


Event = (
    RunStarted
    | RoundStarted
    | Poisoned
    | SplitsChosen
    | DeviceFinished
    | DeviceLost
    | EdgeFinished
    | RoundFinished
    | Evaluated
    | TaskEvaluated
    | DeviceEvaluated
    | NoiseSpent
    | DevicePlaced
    | Clustered
    | DeviceJudged
    | CheckpointSaved
    | Interrupted
    | RunFinished
)

EVENT: TypeAdapter[Event] = TypeAdapter(
    Annotated[Event, Field(discriminator="kind")], config=ConfigDict(ser_json_inf_nan="strings")
)
"""Turns an event into JSON and back; a number that is not finite is written as a string."""

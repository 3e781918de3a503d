"""Messages about watched devices: how they behave, and how much their updates count."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceBehaviour:
    """What a device's submitted adapters make of the public probes.

    Attributes:
        device: its name.
        head: the task whose head it trains; empty where all share one.
        fingerprint: as `core.moves.packed_move` or `core.fingerprint.packed` writes it; empty where
            none was asked.
        step: how its adapters changed, as `core.trust.packed_step` writes it.
        answers: how far each probe's scores moved, as `core.trust.packed_answers` writes it.
    """

    device: str
    head: str
    fingerprint: bytes
    step: bytes
    answers: bytes


@dataclass(frozen=True)
class Behaviours:
    """How the devices of an edge behave at the end of an edge round; it waits for Verdicts.

    Attributes:
        round, edge_round: the edge round meant.
        behaviours: one for each device that ended it.
    """

    round: int
    edge_round: int
    behaviours: Sequence[DeviceBehaviour]


@dataclass(frozen=True)
class DeviceVerdict:
    """How much a device counts.

    Attributes:
        device: its name.
        trust: 0 to 1; its rows count so much.
    """

    device: str
    trust: float


@dataclass(frozen=True)
class Verdicts:
    """How much the devices of an edge count in the average of an edge round.

    Attributes:
        round, edge_round: the edge round meant.
        verdicts: one for each device of the Behaviours that it answers.
    """

    round: int
    edge_round: int
    verdicts: Sequence[DeviceVerdict]

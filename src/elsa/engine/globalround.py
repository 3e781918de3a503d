"""A global round as the cloud drives it, wherever the edges are, and who is told of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from elsa.core.score import Tally
from elsa.errors import ElsaError
from elsa.roles.cloud import Cloud
from elsa.roles.exchange import expect
from elsa.roles.overseer import Place, Regrouping, Standing
from elsa.wire.messages import DeviceReport, EdgeUpdate, Message, RoundOrder
from elsa.wire.watching import Behaviours, Verdicts

Asked = RoundOrder | Verdicts
"""What the cloud asks of an edge in a round: to begin it, or to go on with it."""


@dataclass(frozen=True)
class DeviceRound:
    """A device's part of an edge round, as the simulation saw it.

    Attributes:
        edge_round: which of the global round's edge rounds.
        edge, device: their names.
        samples: rows it trained on; 0 if it was lost.
        loss: mean training loss.
        seconds: simulated, until it was done.
        pace: seconds that it and its link took, to those that its declared speed says.
        lost: why it did not finish; empty if it did.
    """

    edge_round: int
    edge: str
    device: str
    samples: int
    loss: float
    seconds: float
    pace: float = 1.0
    lost: str = ""


@dataclass
class Watch:
    """Whom an engine tells how it goes; every part may be left out.

    Attributes:
        tick: after every exchange; may raise Interrupted.
        device: after every device's edge round.
        unheard: edge, device and reason, where a device was lost in an evaluation.
        judged: edge round, and how each device that ended it stands.
        regrouped: when devices were given their edges anew.
        placed: devices that came, went or moved on real machines.
    """

    tick: Callable[[], None] = field(default=lambda: None)
    device: Callable[[DeviceRound], None] = field(default=lambda _: None)
    unheard: Callable[[str, str, str], None] = field(default=lambda *_: None)
    judged: Callable[[int, Sequence[Standing]], None] = field(default=lambda *_: None)
    regrouped: Callable[[Regrouping], None] = field(default=lambda _: None)
    placed: Callable[[Sequence[Place]], None] = field(default=lambda _: None)


class Rounds(Protocol):
    """Plays the rounds: a simulation, or real machines.

    Attributes:
        seconds: that they took so far.
    """

    seconds: float

    def gather(self) -> None:
        """Find out who is there for the next round."""
        ...

    def train_round(self) -> list[DeviceReport]:
        """One global round."""
        ...

    def evaluate(self) -> dict[str, Tally]:
        """What each device, testers included, counts with the global adapters."""
        ...

    def state(self) -> dict[str, Any]:
        """What is under way after a global round, as plain values for a checkpoint."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state`."""
        ...


def play_round(
    cloud: Cloud,
    ask: Callable[[Mapping[str, Asked]], Iterable[tuple[str, Message | ElsaError]]],
    without: Callable[[str, RoundOrder, ElsaError], None],
    watch: Watch,
) -> list[DeviceReport]:
    """Orders out, verdicts where edge rounds are watched, updates back, the mean taken.

    Args:
        cloud: whose round is due.
        ask: brings requests to edges, by name; gives each edge's answer, or why there is none, in
            the order in which they are to be added up.
        without: told of an edge with its order where there is no answer, or none that can be used.
        watch: told how devices stand, and of new places.
    """
    orders = cloud.orders()
    asked: Mapping[str, Asked] = orders
    while asked:
        behaviours: dict[str, Behaviours] = {}
        for edge, answer in ask(asked):
            try:
                if isinstance(answer, ElsaError):
                    raise answer
                if isinstance(answer, Behaviours):
                    behaviours[edge] = answer
                else:
                    cloud.receive(edge, expect(EdgeUpdate, answer))
            except ElsaError as error:
                without(edge, orders[edge], error)
        asked, standings = cloud.judge(behaviours) if behaviours else ({}, ())
        if standings:
            watch.judged(next(iter(behaviours.values())).edge_round, standings)
    reports = cloud.close_round()
    regrouping = cloud.regroup()
    if regrouping is not None:
        watch.regrouped(regrouping)
    return reports

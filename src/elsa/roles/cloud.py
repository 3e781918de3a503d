"""The cloud: it sees adapters and counts, never activations.

Each global round it picks the devices that take part, sends the global adapters to the edges, and
averages what comes back (hierarchical federated averaging; Liu et al. 2020, arXiv 1905.06641):
theta = sum_k w_k theta_k / sum_k w_k, where w_k is the weight of the devices that edge k averaged.
Other means and a server optimizer may take the place of this one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from elsa.core.aggregate import NewMean, WeightedMean
from elsa.core.codec import all_finite
from elsa.core.score import Tally
from elsa.core.serveropt import FedAdam
from elsa.errors import AdapterError, ProtocolError
from elsa.model.adapters import head_of
from elsa.roles.overseer import Overseer, Place, Regrouping, Standing
from elsa.roles.parcel import Sent, unwrap, wrap
from elsa.wire.messages import DeviceReport, EdgeScores, EdgeUpdate, EvaluationOrder, RoundOrder
from elsa.wire.watching import Behaviours, Verdicts


@dataclass(frozen=True)
class Schedule:
    """How a global round runs.

    Attributes:
        edge_rounds: E, averages at an edge before it reports.
        local_steps: L, optimizer steps of a device in an edge round.
        participation: share of all devices that take part in a round, at least one.
        seed: of the choice of participants.
    """

    edge_rounds: int
    local_steps: int
    participation: float
    seed: int


class Cloud:
    """The root of the hierarchy."""

    def __init__(
        self,
        adapters: Mapping[str, Tensor],
        assignment: Mapping[str, Sequence[str]],
        schedule: Schedule,
        sent: Sent = "float32",
        new_mean: NewMean = WeightedMean,
        server: FedAdam | None = None,
        overseer: Overseer | None = None,
    ) -> None:
        """Set up.

        Args:
            adapters: to start from.
            assignment: each edge's devices.
            schedule: how a round runs.
            sent: how adapters travel.
            new_mean: makes a round's mean over edges.
            server: steps from the old adapters towards the mean; None takes the mean itself.
            overseer: judges devices, and may assign them anew; None leaves all as it is.
        """
        self.adapters = dict(adapters)
        self.assignment = {edge: tuple(devices) for edge, devices in assignment.items()}
        self._overseer = overseer
        self.round = 0
        self._schedule = schedule
        self._sent = sent
        self._server = server
        self._server_state: dict[str, Tensor] = {}
        self._new_mean = new_mean
        self._mean = new_mean()
        self._reports: list[DeviceReport] = []

    def orders(self) -> dict[str, RoundOrder]:
        """The orders of this round, for each edge that has a participant."""
        watched, fingerprints = 0, False
        if self._overseer:
            watched, fingerprints = self._overseer.asks(self.round, self._schedule.edge_rounds)
        chosen, adapters = self.participants(), wrap(self.adapters, self._sent)
        return {
            edge: RoundOrder(
                round=self.round,
                edge_rounds=self._schedule.edge_rounds,
                local_steps=self._schedule.local_steps,
                devices=tuple(device for device in devices if device in chosen),
                adapters=adapters,
                watched=watched,
                fingerprints=fingerprints,
            )
            for edge, devices in self.assignment.items()
            if chosen.intersection(devices)
        }

    def evaluation_orders(self, extra: Mapping[str, Sequence[str]]) -> dict[str, EvaluationOrder]:
        """Orders to evaluate the global adapters on all devices, and on `extra` ones an edge."""
        adapters = wrap(self.adapters, self._sent)
        return {
            edge: EvaluationOrder(self.round, (*devices, *extra.get(edge, ())), adapters)
            for edge, devices in self.assignment.items()
        }

    def judge(
        self, behaviours: Mapping[str, Behaviours]
    ) -> tuple[dict[str, Verdicts], tuple[Standing, ...]]:
        """Answer what the edges report at the end of an edge round; see `Overseer.judge`.

        Raises:
            ProtocolError: nobody asked, or one reports of another global round, or of a device not
                its own.
        """
        if self._overseer is None:
            raise ProtocolError(f"edge {min(behaviours)} sent behaviours that nobody asked for")
        for edge, each in behaviours.items():
            if each.round != self.round:
                raise ProtocolError(
                    f"edge {edge} sent behaviours of round {each.round}; {self.round} is due"
                )
            strangers = {it.device for it in each.behaviours} - set(self.assignment[edge])
            if strangers:
                raise ProtocolError(f"edge {edge} reports of device {min(strangers)}, not its own")
        return self._overseer.judge(behaviours)

    def regroup(self) -> Regrouping | None:
        """Assign devices to edges anew after the round that was closed, if that is due."""
        made = self._overseer.regroup(self.round - 1) if self._overseer else None
        if self._overseer and made:
            self.assignment = self._overseer.assignment()
        return made

    @property
    def places(self) -> tuple[Place, ...]:
        """Where devices begin, and why; empty where nobody oversees them."""
        return self._overseer.first.places if self._overseer else ()

    def standings(self) -> dict[str, Any]:
        """What it knows of devices, as plain values for a checkpoint."""
        return self._overseer.state() if self._overseer else {}

    def restore_standings(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `standings`."""
        if self._overseer:
            self._overseer.restore(state)
            self.assignment = self._overseer.assignment()

    def receive(self, edge: str, update: EdgeUpdate) -> None:
        """Add what an edge reports to this round's mean.

        Raises:
            ProtocolError: the update is of another round.
            AdapterError: its adapters are not the global ones by name and shape, or not finite.
        """
        if update.round != self.round:
            raise ProtocolError(f"edge {edge} sent round {update.round}; round {self.round} is due")
        weights = {"": update.weight} | {it.head: it.weight for it in update.heads}
        if {name: value.shape for name, value in update.adapters.items()} != {
            name: value.shape for name, value in self.adapters.items() if head_of(name) in weights
        }:
            raise AdapterError(f"edge {edge} sent adapters that are not those of this model")
        if update.weight > 0:
            adapters = unwrap(update.adapters)
            if min(weights.values()) <= 0 or not all(map(all_finite, adapters.values())):
                raise AdapterError(f"edge {edge} sent NaN, infinity, or a head of no weight")
            for head, weight in weights.items():
                part = {name: it for name, it in adapters.items() if head_of(name) == head}
                self._mean.add(part, weight, edge)
        self._reports.extend(update.reports)

    def close_round(self) -> list[DeviceReport]:
        """Replace the global adapters by the mean, or go towards it; the next round begins.

        What nobody sent stays as it is, and so do the server's moments of it.
        """
        reports, self._reports = self._reports, []
        mean = self._mean.result(otherwise=self.adapters)
        if self._server is None:
            self.adapters = mean
        else:
            sent = {name: it for name, it in mean.items() if it is not self.adapters[name]}
            self.adapters, self._server_state = self._server.step(
                self.adapters, sent, self._server_state
            )
        self._mean = self._new_mean()
        self.round += 1
        return reports

    def moments(self) -> Mapping[str, Tensor]:
        """The server optimizer's state."""
        return self._server_state

    def restore(
        self,
        adapters: Mapping[str, Tensor],
        round_: int,
        moments: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Go on from these adapters at this round, and from an earlier `moments`."""
        self.adapters = dict(adapters)
        self.round = round_
        self._server_state = dict(moments or {})

    def participants(self) -> set[str]:
        """Names of the devices that take part in this round, drawn from the seed."""
        devices = [device for group in self.assignment.values() for device in group]
        count = max(1, round(self._schedule.participation * len(devices)))
        rng = np.random.default_rng((self._schedule.seed, self.round))
        return {devices[i] for i in rng.choice(len(devices), count, replace=False)}


def tallies(answers: Sequence[EdgeScores]) -> dict[str, Tally]:
    """What each device counted, by device name."""
    return {
        score.device: Tally(
            score.items, score.correct, score.loss * score.items, score.texts, score.whole
        )
        for answer in answers
        for score in answer.scores
    }

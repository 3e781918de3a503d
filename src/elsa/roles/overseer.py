"""What the cloud makes of how devices behave: whom it trusts, and who goes to which edge server.

It sees fingerprints and answers to public probes, which edges made of adapters; never text, labels
or heads. Strategies, so that they can be compared:

    none       dealt in turn, and left there         random   dealt by the seed, and left there
    latency    to the nearest edge that has room     behaviour  similar devices together
    mixed      every edge gets its share of each cluster

The last two begin as `latency` does. Symbols: N devices, K edges, Q probes, d axes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from elsa.core.assign import NOWHERE, Assignment, Rules, assign, distances, match, spread
from elsa.core.cluster import Clusters, cluster
from elsa.core.fingerprint import turns, unpacked
from elsa.core.moves import angles, unpacked_moves
from elsa.core.trust import (
    Trust,
    TrustRules,
    judge,
    remembered,
    unpacked_answers,
    unpacked_step,
    weight,
)
from elsa.errors import ProtocolError
from elsa.wire.watching import Behaviours, DeviceBehaviour, DeviceVerdict, Verdicts

_SHUFFLE = int.from_bytes(b"deal")
"""Keeps the draw of a random assignment apart from every other draw of the seed."""

Strategy = Literal["none", "random", "latency", "behaviour", "mixed"]


@dataclass(frozen=True)
class Policy:
    """How devices are grouped and judged.

    Attributes:
        strategy: see the module.
        clusters: k; 0 lets the eigengap say.
        every: rounds between clusterings, the first in round 0; 0 clusters then only.
        rules: of the assignment.
        probes, axes: Q and d.
        trust: how devices are judged; None trusts all.
        seed: of what is drawn.
        fingerprint: which kind the edges send.
    """

    strategy: Strategy
    clusters: int
    every: int
    rules: Rules
    probes: int
    axes: int
    trust: TrustRules | None
    seed: int
    fingerprint: Literal["move", "gaussian"] = "move"

    def apart(self, prints: Sequence[bytes]) -> Tensor:
        """How far apart devices are by their fingerprints, float64 [N, N].

        Raises:
            BehaviourError: a fingerprint is none.
        """
        if self.fingerprint == "move":
            return angles(unpacked_moves(prints, self.axes))
        return turns([unpacked(it, self.axes) for it in prints])


@dataclass(frozen=True)
class Standing:
    """Why a device counts as much as it does after an edge round.

    Attributes:
        device: its name.
        cluster: its cluster; -1 if it has none.
        step, prediction: agreement with others at its task, -1 to 1 or so.
        trust: smoothed over edge rounds, 0 to 1.
        weight: what its rows are multiplied by now.
        reason: why its trust fell; empty if it did not.
    """

    device: str
    cluster: int
    step: float
    prediction: float
    trust: float
    weight: float
    reason: str = ""


@dataclass(frozen=True)
class Place:
    """Where a device goes, and why; `edge` and `before` are empty for nowhere."""

    device: str
    edge: str
    before: str
    cluster: int
    cost: float
    why: str


@dataclass(frozen=True, eq=False)
class Regrouping:
    """A new assignment.

    Attributes:
        round: global round after which it was made; -1 before the first.
        places: of all devices.
        devices: names of those that were clustered.
        labels: their clusters.
        apart: how far apart they are [n, n]; empty where nothing was clustered.
    """

    round: int
    places: tuple[Place, ...]
    devices: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    apart: Tensor = field(default_factory=lambda: torch.zeros(0, 0))


class Overseer:
    """The cloud's view of its devices.

    Attributes:
        placed: edge of each device, by name; empty for nowhere.
        trust: of each device, by name.
    """

    def __init__(
        self, policy: Policy, devices: Sequence[str], edges: Sequence[str], latency: Tensor
    ) -> None:
        """Set up; `latency` [N, K] is in seconds one way."""
        self._policy = policy
        self._devices = tuple(devices)
        self._edges = tuple(edges)
        self._latency = latency.clone()
        self._labels: dict[str, int] = {}
        self._prints: dict[str, bytes] = {}
        self.trust = dict.fromkeys(devices, Trust())
        self.placed = dict.fromkeys(devices, "")
        self.first = self._first()
        self.placed = {it.device: it.edge for it in self.first.places}

    def assignment(self) -> dict[str, tuple[str, ...]]:
        """Names of each edge's devices."""
        return {
            edge: tuple(device for device, at in self.placed.items() if at == edge)
            for edge in self._edges
        }

    def asks(self, round_: int, edge_rounds: int) -> tuple[int, bool]:
        """Edge rounds of a global round to watch, and whether the first gives fingerprints."""
        policy = self._policy
        clustering = policy.strategy in ("behaviour", "mixed") or policy.trust is not None
        due = clustering and (round_ % policy.every == 0 if policy.every else round_ == 0)
        return (edge_rounds if policy.trust else int(due)), due

    def judge(
        self, behaviours: Mapping[str, Behaviours]
    ) -> tuple[dict[str, Verdicts], tuple[Standing, ...]]:
        """How much each device counts in this edge round, for each edge that reported.

        Fingerprints, where there are any, are clustered first.

        Raises:
            ProtocolError: the edges are not at one edge round, or two claim a device.
            BehaviourError: an edge sent what is no behaviour.
        """
        rows = {it.device: it for each in behaviours.values() for it in each.behaviours}
        (first, *others) = behaviours.values()
        if any((it.round, it.edge_round) != (first.round, first.edge_round) for it in others):
            raise ProtocolError("edges report behaviours of different edge rounds")
        if len(rows) < sum(len(each.behaviours) for each in behaviours.values()):
            raise ProtocolError("two edges report behaviours of one device")
        names = sorted(rows)
        policy = self._policy
        sent = [name for name in names if rows[name].fingerprint]
        if sent:
            prints = {name: rows[name].fingerprint for name in sent}
            apart = policy.apart(list(prints.values()))
            labels = cluster(apart, policy.clusters, policy.seed).labels.tolist()
            self._prints = prints
            self._labels |= dict(zip(sent, labels, strict=True))
        if policy.trust is None:
            standings = {name: Standing(name, -1, 0.0, 0.0, 1.0, 1.0) for name in names}
        else:
            standings = self._stand([rows[name] for name in names], policy.trust)
        verdicts = {
            edge: Verdicts(
                each.round,
                each.edge_round,
                tuple(
                    DeviceVerdict(it.device, standings[it.device].weight) for it in each.behaviours
                ),
            )
            for edge, each in behaviours.items()
        }
        return verdicts, tuple(standings.values()) if policy.trust else ()

    def regroup(self, round_: int) -> Regrouping | None:
        """Give devices their edges anew, if this round's fingerprints are there; else None.

        Who sent none stays where it is, and keeps its room. Who is not trusted is in no cluster,
        and goes where it is nearest.
        """
        prints, self._prints = self._prints, {}
        if self._policy.strategy not in ("behaviour", "mixed") or not prints:
            return None
        least = self._policy.trust.least if self._policy.trust else 0.0
        good = [name for name in prints if self.trust[name].value >= least]
        names = (*good, *(name for name in prints if name not in good))
        apart = self._policy.apart([prints[name] for name in good])
        clusters = cluster(apart, self._policy.clusters, self._policy.seed)
        latency = self._latency[[self._devices.index(name) for name in names]]
        current = [self._number(self.placed[name]) for name in names]
        rules = self._room_for(names)
        if self._policy.strategy == "mixed":
            rest = torch.full((len(names) - len(good),), clusters.count, dtype=torch.int64)
            dealt = Clusters(torch.cat([clusters.labels, rest]), clusters.count + 1)
            found = spread(dealt, latency, rules, current)
        else:
            home = match(clusters, latency[: len(good)], rules, current[: len(good)])
            far = torch.zeros(len(names), len(self._edges), dtype=torch.float64)
            far[: len(good)] = distances(apart, clusters, home)
            found = assign(latency, far, rules, current)
        labels = tuple(clusters.labels.tolist())
        self._labels = (
            self._labels | dict.fromkeys(names, -1) | dict(zip(good, labels, strict=True))
        )
        places = self._places(names, found)
        self.placed |= {it.device: it.edge for it in places}
        return Regrouping(round_, places, tuple(good), labels, apart)

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint must hold, as plain values."""
        return {"trust": dict(self.trust), "placed": dict(self.placed), "labels": self._labels}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state`."""
        self.trust = {name: Trust(*it) for name, it in state["trust"].items()}
        self.placed = dict(state["placed"])
        self._labels = dict(state["labels"])
        self._prints = {}

    def _stand(self, rows: Sequence[DeviceBehaviour], rules: TrustRules) -> dict[str, Standing]:
        if not rows:
            return {}
        names = [row.device for row in rows]
        steps = [unpacked_step(row.step) for row in rows]
        answers = [unpacked_answers(row.answers, self._policy.probes) for row in rows]
        judged, standings = judge(steps, answers, [row.head for row in rows]), {}
        for number, name in enumerate(names):
            now = float(judged.trust[number]), float(judged.evidence[number])
            trust = self.trust[name] = remembered(self.trust[name], *now, rules)
            counts, reason = weight(trust.value, *now, rules), judged.reasons.get(number, "")
            if not counts and not reason:
                reason = "it was not trusted in earlier edge rounds"
            agreed = float(judged.step[number]), float(judged.prediction[number])
            standings[name] = Standing(
                name, self._labels.get(name, -1), *agreed, trust.value, counts, reason
            )
        return standings

    def _first(self) -> Regrouping:
        """The assignment that a run begins with."""
        count, edges = len(self._devices), len(self._edges)
        strategy = self._policy.strategy
        if strategy in ("none", "random"):
            order = np.arange(count)
            if strategy == "random":
                order = np.random.default_rng((self._policy.seed, _SHUFFLE)).permutation(count)
            dealt = [NOWHERE] * count
            for turn, device in enumerate(order):
                dealt[device] = turn % edges
            found = Assignment(tuple(dealt), (0.0,) * count, {})
        else:
            nothing = torch.zeros(count, edges, dtype=torch.float64)
            found = assign(self._latency, nothing, self._policy.rules)
        return Regrouping(-1, self._places(self._devices, found))

    def _places(self, names: Sequence[str], found: Assignment) -> tuple[Place, ...]:
        places = []
        for number, name in enumerate(names):
            at, before = found.edges[number], self.placed.get(name, "")
            edge = "" if at == NOWHERE else self._edges[at]
            why = found.left_out.get(number) or self._why(name, edge, before)
            group = self._labels.get(name, -1)
            places.append(Place(name, edge, before, group, found.costs[number], why))
        return tuple(places)

    def _why(self, name: str, edge: str, before: str) -> str:
        away = float(self._latency[self._devices.index(name), self._edges.index(edge)])
        near = f"{1e3 * away:.4g} ms away"
        group = self._labels.get(name, -1)
        reasons: dict[Strategy, str] = {
            "none": "dealt in turn",
            "random": "dealt by the seed",
            "latency": f"nearest with room, {near}",
            "behaviour": f"nearest to cluster {group}, {near}",
            "mixed": f"its share of cluster {group}, {near}",
        }
        why = reasons[self._policy.strategy]
        if group < 0 and self._policy.strategy in ("behaviour", "mixed"):
            known = bool(self._labels)
            why = f"{'not trusted' if known else 'not clustered yet'}: nearest with room, {near}"
        if before and before == edge:
            why += "; stays, no move gains more than the margin"
        return why

    def _room_for(self, names: Sequence[str]) -> Rules:
        """The rules, with the room that is left by those who are not placed anew."""
        rules, staying = self._policy.rules, set(self._devices) - set(names)
        taken = [sum(self.placed[name] == edge for name in staying) for edge in self._edges]
        room = [max(0, it - gone) for it, gone in zip(rules.capacities, taken, strict=True)]
        return Rules(room, rules.latency_limit, rules.latency_weight, rules.margin)

    def _number(self, edge: str) -> int:
        return self._edges.index(edge) if edge else NOWHERE

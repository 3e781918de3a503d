"""Who goes where among real machines, where devices and edge servers come and go.

Before each round the cloud hears which edges are there, which devices are at them, and how far each
device is from the edges that it reaches. Whoever has a place keeps it; the others are given one.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from elsa.core.assign import NOWHERE, Rules, assign
from elsa.roles.overseer import Overseer, Place, Policy


@dataclass(frozen=True)
class Found:
    """Where a device is.

    Attributes:
        edge: that it is at.
        seconds: one way to each edge that it reaches, by name; empty where it measured none.
    """

    edge: str
    seconds: Mapping[str, float] = field(default_factory=dict)


class Musterer(Overseer):
    """The cloud's view of real devices and edges."""

    def __init__(
        self, policy: Policy, devices: Sequence[str], edges: Sequence[str], latency: Tensor
    ) -> None:
        """Set up; `latency` [N, K] is in seconds one way, as far as it is known."""
        super().__init__(policy, devices, edges, latency)
        self._dealt = False

    def muster(
        self, round_: int, found: Mapping[str, Found], alive: Collection[str], capacity: int = 0
    ) -> tuple[Place, ...]:
        """Give a place to whoever needs one before a round.

        A device that was not found has none. One whose edge is gone or out of its reach, and one
        that had none, goes to the edge that it was dealt to at first, where the strategy deals and
        that edge is there; else to the nearest with room. Strategy `latency` places all devices
        anew as often as others cluster, and the strategies that begin like it until they cluster.

        Args:
            round_: global round to come.
            found: the devices that are there, by name.
            alive: names of the edges that are there.
            capacity: devices that an edge takes; 0 for equal shares of those that are there, and
                more where an edge is the only one within reach.

        Returns:
            The places that changed.
        """
        self._measure(found, alive)
        before, why = dict(self.placed), dict[str, str]()
        for name in self._devices:
            if name not in found and self.placed[name]:
                self.placed[name], why[name] = "", "at no edge that is there"
        anew = self._by_latency(round_)
        waiting = [it for it in self._devices if it in found and (anew or self._homeless(it))]
        if self._policy.strategy in ("none", "random"):
            home = {it.device: it.edge for it in self.first.places}
            for name in [it for it in waiting if math.isfinite(self._away(it, home[it]))]:
                self.placed[name], why[name] = home[name], "back where it was dealt to"
                waiting.remove(name)
        share = -(-len(found) // max(len(alive), 1))
        for room in (capacity,) if capacity else (share, len(found)):
            self._nearest(waiting, found, room, why, anew=anew)
            waiting = [it for it in waiting if not self.placed[it]]
        return tuple(
            Place(it, self.placed[it], before[it], self._labels.get(it, -1), 0.0, why[it])
            for it in self._devices
            if self.placed[it] != before[it]
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state`."""
        super().restore(state)
        self._dealt = True

    def _measure(self, found: Mapping[str, Found], alive: Collection[str]) -> None:
        for name, it in found.items():
            known = it.seconds or {it.edge: 0.0}
            row = [known.get(edge, math.inf) if edge in alive else math.inf for edge in self._edges]
            self._latency[self._devices.index(name)] = torch.tensor(row, dtype=torch.float64)

    def _by_latency(self, round_: int) -> bool:
        """Whether it is time to place all devices by their latency alone."""
        strategy, every = self._policy.strategy, self._policy.every
        due = round_ % every == 0 if every else round_ == 0
        begins = strategy in ("behaviour", "mixed") and not self._labels
        return due and (strategy == "latency" or begins)

    def _away(self, name: str, edge: str) -> float:
        """Seconds one way; infinity where the device does not reach the edge."""
        return float(self._latency[self._devices.index(name), self._edges.index(edge)])

    def _homeless(self, name: str) -> bool:
        at = self.placed[name]
        return not at or not math.isfinite(self._away(name, at))

    def _nearest(
        self,
        names: Sequence[str],
        found: Mapping[str, Found],
        room: int,
        why: dict[str, str],
        *,
        anew: bool,
    ) -> None:
        """Place these at the nearest edges with room; the present edge of each costs a bit less."""
        if not names:
            return
        at = {it: self.placed[it] if anew else found[it].edge for it in names}
        current = [self._number(at[it]) for it in names]
        if anew and not self._dealt:  # nobody is used to where the names happened to put it
            current, self._dealt = [NOWHERE] * len(names), True
        staying = [self.placed[it] for it in found if it not in names]
        left = [max(0, room - staying.count(edge)) for edge in self._edges]
        rules = Rules(left, self._policy.rules.latency_limit, 1.0, self._policy.rules.margin)
        latency = self._latency[[self._devices.index(it) for it in names]]
        made = assign(latency, torch.zeros_like(latency), rules, current)
        for number, name in enumerate(names):
            place = made.edges[number]
            gone = self.placed[name] if not anew else ""
            gone = "" if gone and math.isfinite(self._away(name, gone)) else gone
            self.placed[name] = "" if place == NOWHERE else self._edges[place]
            why[name] = made.left_out.get(number) or (
                f"{f'{gone} is out of its reach: ' if gone else ''}nearest with room, "
                f"{1e3 * self._away(name, self.placed[name]):.4g} ms away"
            )

"""Updates on a virtual clock, kept at an edge server until they come.

A device's update has two halves: what it sends, and its own copy of the trunk's adapters, which
never left the edge. Both were learned from the same adapters, and are kept and counted together.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from elsa.core.aggregate import Mean
from elsa.core.buffer import Buffer, rebased, staleness_weight
from elsa.model.adapters import head_of
from elsa.roles.edgeround import Held, Learned

_FACTS = "facts"
_UPDATE = "update"
_BEGUN = "begun"


class _Whole:
    """Takes both halves of an update, as a mean of it alone would."""

    def __init__(self, adapters: Mapping[str, Tensor]) -> None:
        self.adapters = dict(adapters)

    def add(
        self,
        adapters: Mapping[str, Tensor],
        weight: float,  # noqa: ARG002
        sender: str = "",  # noqa: ARG002
    ) -> None:
        self.adapters |= {name: value.clone() for name, value in adapters.items()}

    def result(self, otherwise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.adapters.get(name, value) for name, value in otherwise.items()}


@dataclass(frozen=True)
class _Flight:
    """An update put off.

    Attributes:
        number: of averages before it began; names the adapters that it began with.
        whole: both halves of it.
        learned: what comes with them.
    """

    number: int
    whole: _Whole
    learned: Learned


class Flights:
    """Which updates of an edge are on their way; those put off, with what each began with."""

    def __init__(self, exponent: float) -> None:
        """Set up; `exponent` is a of the weight (1 + s)^-a."""
        self._exponent = exponent
        self._buffer = Buffer()
        self._late: dict[str, _Flight] = {}
        self._begun: dict[int, Mapping[str, Tensor]] = {}

    def open(self, number: int) -> None:
        """A global round begins, after so many averages; what was put off is on its way."""
        self._buffer = Buffer(number, {peer: it.number for peer, it in self._late.items()})

    def begin(self, peer: str) -> None:
        """A device's update is on its way."""
        self._buffer = self._buffer.begin(peer)

    def come(self, peer: str) -> bool:
        """A device's update has come; whether there is one."""
        if peer not in self._buffer.away:
            return False
        self._buffer = self._buffer.come(peer)
        return True

    def lose(self, peer: str) -> None:
        """Drop a device's update, if there is one."""
        self._buffer = self._buffer.lose(peer)
        self._late.pop(peer, None)
        self._forget()

    def average(self) -> dict[str, int]:
        """An average is taken: who counts, and for how many averages each was on its way."""
        counted, self._buffer = self._buffer.average()
        return counted

    def put(self, peer: str, held: Held, begun: Mapping[str, Tensor]) -> Mean:
        """Put off an update that began with these adapters; gives what takes its other half."""
        flight = _Flight(self._buffer.away[peer], _Whole(held.adapters), held.learned)
        self._late[peer] = flight
        self._begun[flight.number] = begun
        return flight.whole

    def take(self, peer: str, staleness: int, now: Mapping[str, Tensor], mean: Mean) -> Learned:
        """Enter an update that was put off into a mean; it is kept no longer."""
        flight = self._late.pop(peer)
        weight = staleness_weight(staleness, self._exponent)
        begun = self._begun[flight.number]
        mean.add(rebased(flight.whole.adapters, begun, now, weight), flight.learned.rows, peer)
        self._forget()
        return flight.learned

    def state(self) -> dict[str, Tensor]:
        """What was put off as tensors by name, for a checkpoint between global rounds."""
        held: dict[str, Tensor] = {}
        for peer, it in self._late.items():
            facts = [it.number, it.learned.rows, it.learned.samples, it.learned.loss]
            held[f"{_FACTS}/{peer}"] = torch.tensor(facts, dtype=torch.float64)
            held |= {f"{_UPDATE}/{peer}/{name}": value for name, value in it.whole.adapters.items()}
        for number, adapters in self._begun.items():
            held |= {f"{_BEGUN}/{number}/{name}": value for name, value in adapters.items()}
        return held

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an earlier `state`."""
        parts: dict[tuple[str, str], dict[str, Tensor]] = {}
        for key, value in state.items():
            kind, owner, *name = key.split("/", 2)
            parts.setdefault((kind, owner), {})["".join(name)] = value
        self._late, self._begun = {}, {}
        for (kind, owner), tensors in parts.items():
            if kind == _BEGUN:
                self._begun[int(owner)] = tensors
            elif kind == _FACTS:
                number, rows, samples, loss = tensors[""].tolist()
                adapters = parts[_UPDATE, owner]
                head = next(filter(None, map(head_of, adapters)), "")
                learned = Learned(int(rows), int(samples), loss, head)
                self._late[owner] = _Flight(int(number), _Whole(adapters), learned)

    def _forget(self) -> None:
        wanted = {it.number for it in self._late.values()}
        self._begun = {number: it for number, it in self._begun.items() if number in wanted}

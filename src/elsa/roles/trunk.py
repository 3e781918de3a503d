"""Who owns the adapters of the middle blocks at an edge server.

Per device (parallel SplitFed, Thapa et al. 2022, arXiv 2004.12088): each device has a copy, which
is averaged with the rest of its adapters. Shared: one set an edge, updated once a local step on the
concatenated batch of all its devices; its gradient is sum_n B_n g_n / sum_n B_n, where g_n is the
gradient of the mean loss over the B_n rows of device n. Sequential (SplitFed v2, the same paper):
one set an edge, updated by each device's batch in turn.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Protocol

from torch import Tensor

from elsa.core.aggregate import Mean
from elsa.errors import ProtocolError
from elsa.roles.learner import Learner, OptimizerSettings

_SHARED = "shared"


class TrunkAdapters(Protocol):
    """The trunk adapters of all devices of an edge."""

    def open(self, adapters: Mapping[str, Tensor], peers: Iterable[str]) -> None:
        """Start an edge round from these adapters with these devices."""
        ...

    def join(self, peer: str, names: Iterable[str]) -> Learner:
        """The learner that `peer`'s forward and backward passes go through."""
        ...

    def check_turn(self, peer: str, step: int) -> None:
        """Raise ProtocolError if `peer` may not start this local step yet."""
        ...

    def gather(
        self, peer: str, step: int, gradients: Mapping[str, Tensor | None], rows: int
    ) -> None:
        """Take the gradients of a local step on `rows` rows of `peer`."""
        ...

    def lose(self, peer: str) -> None:
        """Go on without `peer` in this edge round."""
        ...

    def adapters(self, peer: str) -> Mapping[str, Tensor]:
        """The trunk adapters as `peer`'s local steps left them."""
        ...

    def contribute(self, peer: str, weight: float, mean: Mean) -> None:
        """Enter `peer`'s trunk adapters into the edge's mean."""
        ...

    def close(self, mean: Mean) -> None:
        """End the edge round: enter what was not entered device by device."""
        ...

    def moments(self) -> dict[str, Tensor]:
        """Optimizer state to keep across rounds, under names that begin with their owner's."""
        ...

    def moments_of(self, peer: str) -> Mapping[str, Tensor]:
        """Optimizer state of `peer`'s own adapters, under "<moment>/<adapter>"."""
        ...

    def set_moments(self, peer: str, moments: Mapping[str, Tensor]) -> None:
        """Replace what `moments_of` gives; nothing happens where there are no own adapters."""
        ...

    def restore(self, moments: Mapping[str, Tensor]) -> None:
        """Go on from what `moments` gave."""
        ...

    def keep_moments_in(self, store: MutableMapping[str, Mapping[str, Tensor]]) -> None:
        """Keep them there from now on, by owner; what is there already is kept."""
        ...


class PerDeviceTrunk:
    """A copy of the trunk adapters for each device."""

    def __init__(self, settings: OptimizerSettings) -> None:
        self._settings = settings
        self._adapters: Mapping[str, Tensor] = {}
        self._learners: dict[str, Learner] = {}
        self._moments: MutableMapping[str, Mapping[str, Tensor]] = {}

    def open(self, adapters: Mapping[str, Tensor], peers: Iterable[str]) -> None:  # noqa: ARG002
        """Forget the copies of the last edge round."""
        self._adapters = adapters
        self._learners.clear()

    def join(self, peer: str, names: Iterable[str]) -> Learner:
        """A fresh copy of the edge's adapters, with the device's own moments."""
        chosen = {name: self._adapters[name] for name in names}
        self._learners[peer] = Learner(chosen, self._settings, self._moments.get(peer))
        return self._learners[peer]

    def check_turn(self, peer: str, step: int) -> None:
        """A device waits for nobody."""

    def gather(
        self,
        peer: str,
        step: int,  # noqa: ARG002
        gradients: Mapping[str, Tensor | None],
        rows: int,  # noqa: ARG002
    ) -> None:
        """Step at once: nobody else's gradients matter."""
        self._learners[peer].gather(gradients)
        self._learners[peer].step()

    def lose(self, peer: str) -> None:
        """Drop the device's copy."""
        self._learners.pop(peer, None)

    def adapters(self, peer: str) -> Mapping[str, Tensor]:
        """The device's copy."""
        return self._learners[peer].tensors()

    def contribute(self, peer: str, weight: float, mean: Mean) -> None:
        """Enter the copy with the device's weight, and let go of it."""
        learner = self._learners.pop(peer)
        mean.add(learner.tensors(), weight, peer)
        if self._settings.keep_moments:
            self._moments[peer] = learner.moments()

    def close(self, mean: Mean) -> None:
        """Nothing is left to enter."""

    def moments(self) -> dict[str, Tensor]:
        """The devices' moments, under "<device>/<moment>"."""
        return {
            f"{peer}/{key}": value
            for peer, moments in self._moments.items()
            for key, value in moments.items()
        }

    def moments_of(self, peer: str) -> Mapping[str, Tensor]:
        """The device's moments."""
        return self._moments.get(peer, {})

    def set_moments(self, peer: str, moments: Mapping[str, Tensor]) -> None:
        """Go on from these."""
        self._moments[peer] = dict(moments)

    def restore(self, moments: Mapping[str, Tensor]) -> None:
        """Take back what `moments` gave."""
        found: dict[str, dict[str, Tensor]] = {}
        for key, value in moments.items():
            peer, _, name = key.partition("/")
            found.setdefault(peer, {})[name] = value
        self._moments.clear()
        self._moments.update(found)

    def keep_moments_in(self, store: MutableMapping[str, Mapping[str, Tensor]]) -> None:
        """Keep them there, by device."""
        self._moments = store


class SharedTrunk:
    """One set of trunk adapters an edge, stepped when every device has sent its gradients."""

    def __init__(self, settings: OptimizerSettings) -> None:
        self._settings = settings
        self._adapters: Mapping[str, Tensor] = {}
        self._learner: Learner | None = None
        self._moments: MutableMapping[str, Mapping[str, Tensor]] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._waiting: set[str] = set()
        self._arrived: dict[str, int] = {}
        self._gathered: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._step = 0

    def open(self, adapters: Mapping[str, Tensor], peers: Iterable[str]) -> None:
        """Start from the edge's adapters; every device named is waited for at each step."""
        self._adapters = adapters
        self._learner = None
        self._waiting = set(peers)
        self._names, self._arrived, self._gathered, self._weights = {}, {}, {}, {}
        self._step = 0

    def join(self, peer: str, names: Iterable[str]) -> Learner:
        """The edge's one learner; it covers the blocks of every device's trunk."""
        self._names[peer] = tuple(names)
        if self._learner is None:
            before = self._moments.get(_SHARED)
            self._learner = Learner(self._adapters, self._settings, before)
        return self._learner

    def check_turn(self, peer: str, step: int) -> None:
        """A device that runs ahead would compute with adapters about to be replaced.

        Raises:
            ProtocolError: the others have not done the local step before.
        """
        if step != self._step or peer in self._arrived or self._learner is None:
            raise ProtocolError(
                f"device {peer} is at local step {step} where the shared trunk is at {self._step}"
            )

    def gather(
        self, peer: str, step: int, gradients: Mapping[str, Tensor | None], rows: int
    ) -> None:
        """Add the gradients; step when the last device of this local step has sent its own.

        Raises:
            ProtocolError: the device runs ahead of the others.
        """
        self.check_turn(peer, step)
        assert self._learner is not None
        self._learner.gather(gradients, float(rows))
        self._arrived[peer] = rows
        for name in gradients:
            self._gathered[name] = self._gathered.get(name, 0.0) + rows
        self._step_if_complete()

    def lose(self, peer: str) -> None:
        """Wait for it no longer; gradients and a weight that it already sent count."""
        self._waiting.discard(peer)
        self._step_if_complete()

    def adapters(self, peer: str) -> Mapping[str, Tensor]:
        """The shared ones, of the device's blocks."""
        assert self._learner is not None
        return self._learner.tensors(self._names[peer])

    def contribute(self, peer: str, weight: float, mean: Mean) -> None:  # noqa: ARG002
        """Remember the device's weight until all have finished."""
        self._weights[peer] = weight

    def close(self, mean: Mean) -> None:
        """Enter the shared adapters, each block with the weight of the devices that used it."""
        if self._learner is None:
            return
        for peer, weight in self._weights.items():
            mean.add(self._learner.tensors(self._names[peer]), weight, peer)
        if self._settings.keep_moments:
            self._moments[_SHARED] = self._learner.moments()
        self._learner = None

    def moments(self) -> dict[str, Tensor]:
        """The shared moments, under "shared/<moment>"."""
        held = self._moments.get(_SHARED, {})
        return {f"{_SHARED}/{key}": value for key, value in held.items()}

    def moments_of(self, peer: str) -> Mapping[str, Tensor]:  # noqa: ARG002
        """None: the moments are everybody's."""
        return {}

    def set_moments(self, peer: str, moments: Mapping[str, Tensor]) -> None:
        """Nothing is any device's own."""

    def restore(self, moments: Mapping[str, Tensor]) -> None:
        """Take back what `moments` gave."""
        self._moments[_SHARED] = {key.partition("/")[2]: it for key, it in moments.items()}

    def keep_moments_in(self, store: MutableMapping[str, Mapping[str, Tensor]]) -> None:
        """Keep them there, as those of one owner."""
        self._moments = store

    def _step_if_complete(self) -> None:
        if self._learner is None or not self._arrived or self._waiting - set(self._arrived):
            return
        for name, rows in self._gathered.items():
            parameter = self._learner.parameters[name]
            if parameter.grad is not None:
                parameter.grad = parameter.grad / rows
        self._learner.step()
        self._arrived, self._gathered = {}, {}
        self._step += 1


class SequentialTrunk(SharedTrunk):
    """One set of trunk adapters an edge, stepped by one device after the other, in their order."""

    def __init__(self, settings: OptimizerSettings) -> None:
        super().__init__(settings)
        self._order: list[str] = []
        self._turn = 0

    def open(self, adapters: Mapping[str, Tensor], peers: Iterable[str]) -> None:
        """Start from the edge's adapters; devices come in the order in which they are named."""
        self._order = list(peers)
        self._turn = 0
        super().open(adapters, self._order)

    def check_turn(self, peer: str, step: int) -> None:
        """A device computes with what the one before it left.

        Raises:
            ProtocolError: another device, or another local step, is due.
        """
        due = self._order[self._turn] if self._order else ""
        if (peer, step) != (due, self._step):
            raise ProtocolError(
                f"device {peer} is at local step {step} where device {due} is due with {self._step}"
            )

    def gather(
        self,
        peer: str,
        step: int,
        gradients: Mapping[str, Tensor | None],
        rows: int,  # noqa: ARG002
    ) -> None:
        """Step at once; the next device's turn begins.

        Raises:
            ProtocolError: it is not the device's turn.
        """
        self.check_turn(peer, step)
        assert self._learner is not None
        self._learner.gather(gradients)
        self._learner.step()
        self._pass_on(self._turn + 1)

    def lose(self, peer: str) -> None:
        """Leave its turns out; what it changed stays."""
        if peer in self._order:
            place = self._order.index(peer)
            self._order.remove(peer)
            self._pass_on(self._turn - (place < self._turn))

    def _pass_on(self, turn: int) -> None:
        rounds, self._turn = divmod(turn, max(len(self._order), 1))
        self._step += rounds

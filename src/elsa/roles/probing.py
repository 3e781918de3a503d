"""How an edge server sees what its devices' submitted adapters make of the public probes.

The edge holds the adapters anyway, and the base weights are public. So a device sends nothing more,
and cannot lie: what is seen is what would be averaged. Shapes: Q probes, D hidden size, d axes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from elsa.core.split import Split
from elsa.core.trust import packed_answers, packed_step
from elsa.errors import BehaviourError
from elsa.model.adapters import block_of
from elsa.wire.watching import DeviceBehaviour


@dataclass(frozen=True)
class Seen:
    """What adapters make of the probes.

    Attributes:
        states: pooled final hidden states [Q, D], before any head.
        scores: what the head makes of them [Q, C]; C is 0 where the task has no classes.
    """

    states: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Probing:
    """The probes and the axes that they are seen on.

    Attributes:
        look: (task, split, adapters) -> what they make of the probes.
        write: (states before, states after) -> fingerprint, on axes that all share.
    """

    look: Callable[[str, Split, Mapping[str, Tensor]], Seen]
    write: Callable[[Tensor, Tensor], bytes]

    def since(self, before: Mapping[str, Tensor]) -> "Changes":
        """What devices make of the adapters `before`, which all of an edge round started from."""
        return Changes(self, before)


class Changes:
    """What the devices of an edge round did; the adapters before are looked at once a model."""

    def __init__(self, probing: Probing, before: Mapping[str, Tensor]) -> None:
        """Set up; `before` must not change while this is in use."""
        self._probing = probing
        self._before = before
        self._first: dict[tuple[str, Split], Seen] = {}

    def behaviour(
        self,
        device: str,
        head: str,
        split: Split,
        after: Mapping[str, Tensor],
        *,
        whole: bool,
    ) -> DeviceBehaviour:
        """What a device did.

        Args:
            device: its name.
            head: the task whose head it trains.
            split: where its model is cut.
            after: the adapters that it submitted, with its trunk's.
            whole: whether to add a fingerprint.

        Raises:
            BehaviourError: a value is not finite.
        """
        look, write = self._probing.look, self._probing.write
        if (head, split) not in self._first:
            self._first[head, split] = look(head, split, self._before)
        first, seen = self._first[head, split], look(head, split, after)
        step = {name: value for name, value in after.items() if ".lora_B." in name}
        print_ = write(first.states, seen.states) if whole else b""
        if not bool(torch.isfinite(seen.scores).all()):
            raise BehaviourError(
                "its answers to the probes hold NaN or infinity; its model diverged"
            )
        answers = packed_answers(self._by_head(head, split, after))
        return DeviceBehaviour(device, head, print_, packed_step(self._before, step), answers)

    def _by_head(self, head: str, split: Split, after: Mapping[str, Tensor]) -> Tensor:
        """How far the head in `after` moves scores [Q, C] on the states that all started from."""
        first = self._first[head, split].scores
        if not first.shape[1]:
            return first
        heads = {name: value for name, value in after.items() if block_of(name) is None}
        return self._probing.look(head, split, {**self._before, **heads}).scores - first

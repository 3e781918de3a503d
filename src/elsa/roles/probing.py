"""How an edge server sees what its devices' submitted adapters make of the public probes.

The edge holds the adapters anyway, and the base weights are public. So a device sends nothing more,
and cannot lie: what is seen is what would be averaged. Shapes: Q probes, D hidden size, d axes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from elsa.core.split import Split
from elsa.core.trust import packed_answers, packed_step
from elsa.model.adapters import block_of
from elsa.wire.watching import DeviceBehaviour


@dataclass(frozen=True)
class Seen:
    """What adapters make of the probes.

    Attributes:
        states: pooled final hidden states [Q, D], before any head.
        final: the same before they are pooled, as `Probing.judge` reads them.
    """

    states: Tensor
    final: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Probing:
    """The probes and the axes that they are seen on.

    Attributes:
        look: (task, split, adapters) -> what they make of the probes.
        judge: (task, split, adapters, seen) -> what the head of these adapters makes of final
            states that others came to: scores [Q, C], float32; C is 0 where there are no classes.
        write: (states before, states after) -> fingerprint, on axes that all share.
    """

    look: Callable[[str, Split, Mapping[str, Tensor]], Seen]
    judge: Callable[[str, Split, Mapping[str, Tensor], Seen], Tensor]
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
        probing, first = self._probing, self._looked(head, split)
        step = {name: value for name, value in after.items() if ".lora_B." in name}
        print_ = b""
        if whole:
            print_ = probing.write(first.states, probing.look(head, split, after).states)
        answers = packed_answers(self._by_head(head, split, after))
        return DeviceBehaviour(device, head, print_, packed_step(self._before, step), answers)

    def _looked(self, head: str, split: Split) -> Seen:
        if (head, split) not in self._first:
            self._first[head, split] = self._probing.look(head, split, self._before)
        return self._first[head, split]

    def _by_head(self, head: str, split: Split, after: Mapping[str, Tensor]) -> Tensor:
        """How far the head in `after` moves scores [Q, C] on the states that all started from."""
        seen, judge = self._looked(head, split), self._probing.judge
        heads = {name: value for name, value in after.items() if block_of(name) is None}
        moved = judge(head, split, {**self._before, **heads}, seen)
        return moved - judge(head, split, self._before, seen)

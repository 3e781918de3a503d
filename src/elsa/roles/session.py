"""A device's passes through the trunk in one edge round, as its edge server sees them.

Shapes: T tokens of a batch without padding, D hidden size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast, get_args

import torch
from torch import Tensor, nn

from elsa.core.lowrank import cut, rank_of
from elsa.core.ragged import (
    Reach,
    chosen_by,
    flat_index,
    mask_of,
    reached,
    reached_lengths,
    unpack,
)
from elsa.core.split import Split
from elsa.errors import AdapterError, CacheMiss, CodecError, ProtocolError
from elsa.model.adapters import head_of
from elsa.model.segments import Top, Trunk
from elsa.roles.hops import Hops
from elsa.roles.microbatches import MicroBatches
from elsa.wire.messages import (
    Accepted,
    Activations,
    Gradients,
    LabelledActivations,
    Ready,
    Resend,
    Update,
)

Gather = Callable[[Mapping[str, Tensor | None], int], None]
"""Takes the trunk's gradients of a local step on so many rows."""


@dataclass(frozen=True)
class _Pending:
    """A forward pass whose backward pass is due, if any: hidden states at both cuts, rows of each
    text."""

    step: int
    h1: Tensor
    h2: Tensor
    lengths: Sequence[int]
    down: Sequence[int]
    numbers: Sequence[int]


@dataclass
class Session:
    """What a device does between Ready and Update, or Score.

    Attributes:
        peer: the device.
        split: where its model is cut.
        trunk: the segment for that; with the head in a two-part split, and None where the device
            holds the whole model.
        parameters: adapters of it that the device's passes go through.
        training: whether it trains, or evaluates.
        shapes: of the adapters that it holds.
        hops: its codecs.
        frozen: whether nothing learns below the first cut.
        reach: what it needs of each sequence at the second cut.
        head: name of its task; empty where there is one without a name.
        longest: tokens of the longest sequence.
        dtype: in which both ends compute.
        step: local step that is due.
        in_flight: micro-batches of a step that it may have under way at once.
    """

    peer: str
    split: Split
    trunk: Trunk | Top | None
    parameters: Mapping[str, nn.Parameter]
    training: bool
    shapes: Mapping[str, torch.Size]
    hops: Hops
    frozen: bool
    reach: Reach
    head: str
    longest: int
    dtype: torch.dtype
    step: int = 0
    in_flight: int = 1
    _pending: dict[int, _Pending] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._parts = MicroBatches(self.in_flight if self.training and not self.still else 1)

    @property
    def still(self) -> bool:
        """Whether nothing learns below the second cut; then no gradient is due."""
        trunk = self.trunk
        return self.frozen and isinstance(trunk, Trunk) and not trunk.adapter_names

    @property
    def waiting(self) -> int:
        """Forward passes that wait for their backward passes."""
        return 0 if self.still else len(self._pending)

    @property
    def steps_here(self) -> bool:
        """Whether each of the device's local steps passes here."""
        return self.trunk is not None and not self.still

    def check_turn(self, request: Activations | LabelledActivations) -> None:
        """Raise ProtocolError if these activations are not what is due."""
        kind = Activations if isinstance(self.trunk, Trunk) else LabelledActivations
        if self.trunk is None or not isinstance(request, kind):
            raise ProtocolError(
                f"device {self.peer}: {type(request).__name__} in a {self.split.layout} split"
            )
        due = request.training == self.training and request.step == self.step
        several = isinstance(request, Activations) and self._parts.most > 1
        if not due or (self._pending and not self.still and not several):
            raise ProtocolError(
                f"device {self.peer}: activations of step {request.step} "
                f"({_phase(request.training)}) out of turn; "
                f"step {self.step} ({_phase(self.training)}) is due"
            )
        if isinstance(request, Activations):
            self._parts.check(self.peer, request)

    def check_lengths(self, lengths: Sequence[int]) -> None:
        """Raise ProtocolError if sequences of these lengths are not allowed."""
        if not lengths or not 1 <= min(lengths) <= max(lengths) <= self.longest:
            raise ProtocolError(
                f"device {self.peer}: sequences of 1 to {self.longest} tokens are allowed"
            )

    def forward(self, request: Activations) -> Activations | Resend:
        """h1 through the trunk; Resend if it builds on what is not held here."""
        lengths, numbers, part = request.lengths, request.numbers, request.micro_batch
        self.check_lengths(lengths)
        if bool(request.marks) != (self.reach == "some"):
            raise ProtocolError(
                f"device {self.peer}: tokens are marked where the reach is 'some' and nowhere "
                f"else; it asked for '{self.reach}'"
            )
        chosen = chosen_by(request.marks, sum(lengths))
        assert isinstance(self.trunk, Trunk)
        try:
            h1 = self.hops.unseal(
                "h1", request.packet, lengths, request.step, numbers, self.dtype, micro_batch=part
            )
        except CacheMiss:
            return Resend(request.step, micro_batch=part)
        width, rows = max(lengths), len(lengths)
        index, mask = flat_index(lengths, width), mask_of(lengths, width)
        self.trunk.bind(self.parameters)
        down = reached_lengths(lengths, self.reach, chosen)
        with torch.set_grad_enabled(self.training and not self.still):
            h1.requires_grad_(self.training and not self.frozen)
            out = self.trunk(unpack(h1, index, rows, width), mask)
            h2 = reached(out, lengths, self.reach, chosen)
        if self.training:
            if self.still:
                self._pending.clear()
            else:
                self._parts.take(request)
            self._pending[part] = _Pending(request.step, h1, h2, lengths, down, numbers)
        if not self.training or self.still:
            self.step += 1
        packet = self.hops.seal("h2", h2.detach(), down, request.step, numbers, micro_batch=part)
        return Activations(request.step, request.training, down, packet, numbers, micro_batch=part)

    def send_again(self, request: Resend) -> Activations:
        """The last h2 of a micro-batch, in full."""
        part, step = request.micro_batch, request.step
        pending = self._pending.get(part)
        if pending is None or step != pending.step:
            raise ProtocolError(f"device {self.peer}: nothing of step {request.step} to send again")
        down, numbers, h2 = pending.down, pending.numbers, pending.h2.detach()
        packet = self.hops.seal("h2", h2, down, step, numbers, micro_batch=part, full=True)
        return Activations(step, self.training, down, packet, numbers, micro_batch=part)

    def backward(self, request: Gradients, gather: Gather) -> Gradients | Accepted:
        """g2 back through the trunk; its adapters' gradients go to `gather`, g1 to the device."""
        part = request.micro_batch
        pending = self._pending.get(part)
        if pending is None or request.step != self.step or self.still:
            raise ProtocolError(f"device {self.peer}: gradients of step {request.step} out of turn")
        step, numbers = request.step, pending.numbers
        g2 = self.hops.unseal(
            "g2",
            request.packet,
            pending.down,
            step,
            numbers,
            pending.h2.dtype,
            micro_batch=part,
        )
        assert isinstance(self.trunk, Trunk)
        names = self.trunk.adapter_names
        parameters = [self.parameters[name] for name in names]
        wanted = parameters if self.frozen else [*parameters, pending.h1]
        g2 = g2.to(pending.h2.device)
        found = torch.autograd.grad(pending.h2, wanted, g2, allow_unused=True)
        del self._pending[part]
        self.finish(names, found[: len(parameters)], len(pending.lengths), gather)
        if self.frozen:
            return Accepted()
        packet = self.hops.seal("g1", found[-1], pending.lengths, step, numbers, micro_batch=part)
        return Gradients(step, packet, micro_batch=part)

    def finish(
        self,
        names: Sequence[str],
        gradients: Sequence[Tensor | None],
        rows: int,
        gather: Gather,
    ) -> None:
        """Take these adapters' gradients, of so many rows; after a step's last they go to `gather`.

        Raises:
            CodecError: they overflow; nothing is gathered then.
        """
        # AdamW squares them; one that overflows would spoil a trunk that others share.
        energies = [it.square().sum() for it in gradients if it is not None]
        if energies and not bool(torch.isfinite(torch.stack(energies)).all()):
            raise CodecError(
                f"device {self.peer}: its gradients overflow in the trunk; its training has "
                "diverged"
            )
        parts = self._parts
        parts.add(dict(zip(names, gradients, strict=True)), rows)
        if self._pending or not parts.whole:
            return
        self._parts = MicroBatches(parts.most)
        self.step += 1
        gather(parts.gradients, parts.rows)

    def check_update(self, request: Update) -> None:
        """Raise AdapterError if an update is not of the adapters that the device was given.

        Nor may it be of no rows: a mean would have nothing to weigh it by.
        """
        if request.rows < 1:
            raise AdapterError(f"device {self.peer}: an update of {request.rows} rows")
        if request.adapters.keys() != self.shapes.keys():
            odd = sorted(request.adapters.keys() ^ self.shapes.keys())
            raise AdapterError(f"device {self.peer}: update lacks or adds {', '.join(odd[:3])}")
        for name, value in request.adapters.items():
            if value.shape != self.shapes[name]:
                raise AdapterError(
                    f"device {self.peer}: {name} has shape {list(value.shape)}, "
                    f"not {list(self.shapes[name])}"
                )


def adapters_for(
    peer: str, request: Ready, adapters: Mapping[str, Tensor], kept: Sequence[str]
) -> dict[str, Tensor]:
    """The adapters that a device asks for: all but those `kept` at the edge, in its rank.

    Of several heads it gets its own.

    Raises:
        ProtocolError: there is no such rank or head.
    """
    rank = rank_of(adapters)
    if not 0 <= request.rank <= rank:
        raise ProtocolError(
            f"device {peer} asks for adapters of rank {request.rank}; allowed: 1 to {rank}"
        )
    heads = {head_of(name) for name in adapters} - {""}
    if request.head not in (heads or {""}):
        raise ProtocolError(
            f"device {peer} trains the head of task '{request.head}'; this run has "
            f"{', '.join(sorted(heads)) or 'one head, without a name'}"
        )
    names = set(kept)
    own = {
        name: value
        for name, value in adapters.items()
        if name not in names and head_of(name) in ("", request.head)
    }
    return cut(own, request.rank or rank)


def reach_of(peer: str, request: Ready) -> Reach:
    """What a device needs of each sequence; raises ProtocolError for what there is not."""
    if request.reach not in get_args(Reach):
        raise ProtocolError(
            f"device {peer} asks for '{request.reach}' of each sequence; "
            f"allowed: {', '.join(get_args(Reach))}"
        )
    return cast(Reach, request.reach)


def _phase(training: bool) -> str:
    return "training" if training else "evaluation"

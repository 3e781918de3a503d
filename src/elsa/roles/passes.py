"""The passes of a device's local step, by where the model is cut.

three-part (ELSA, arXiv 2601.13824, split training), four hops:

    h1 = bottom(x)  -> edge    hop 1        h2 = trunk(h1)  <- edge   hop 2
    g2 = dL/dh2     -> edge    hop 3        g1 = dL/dh1     <- edge   hop 4

With several micro-batches in flight each takes these hops by itself, and the device works on one
while others are on the wire or at the edge.

Where nothing learns below the second cut, a text's h2 is asked for once and kept (`roles.kept`);
then hops 3 and 4 do not exist, and no gradient leaves the device. two-part: hops 1 and 4, with the
labels on hop 1. whole: none.

Shapes: T tokens of a batch without padding, U rows of them that the top uses, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from elsa.core.ragged import flat_index, marks_of, reached, unpack
from elsa.core.score import Tally
from elsa.errors import CacheMiss, ProtocolError
from elsa.roles.exchange import Exchange, expect, interleaved
from elsa.roles.hops import Hops
from elsa.roles.kept import Kept
from elsa.roles.local import LocalStep
from elsa.roles.perturb import Disguise
from elsa.wire.messages import (
    Accepted,
    Activations,
    Gradients,
    LabelledActivations,
    Message,
    Resend,
    Score,
)


@dataclass(frozen=True)
class _Place:
    """A micro-batch of a step; the whole batch where it is the only one."""

    step: int
    micro_batch: int = 0
    more: bool = False

    def check(self, reply: Activations | Gradients) -> None:
        """Raise ProtocolError if an answer is to another."""
        if (reply.step, reply.micro_batch) != (self.step, self.micro_batch):
            raise ProtocolError(
                f"answer to step {reply.step}, micro-batch {reply.micro_batch} came where step "
                f"{self.step}, micro-batch {self.micro_batch} was due"
            )


class Passes(Protocol):
    """How a device's batches go through the model in an edge round."""

    @property
    def alone(self) -> bool:
        """Whether its local steps send no gradient down."""
        ...

    def step(self, step: int, local: LocalStep) -> Exchange[float]:
        """Both passes of a local step: the batch's mean loss; adapters gather gradients."""
        ...

    def score(self, step: int, local: LocalStep) -> Exchange[Tally]:
        """Right predictions and losses of a batch."""
        ...


class ThreePart:
    """The trunk is at the edge."""

    alone = False

    def __init__(self, hops: Hops, in_flight: int = 1) -> None:
        """Set up; a batch goes in at most `in_flight` micro-batches, all under way at once."""
        self._hops = hops
        self._in_flight = in_flight

    def step(self, step: int, local: LocalStep) -> Exchange[float]:
        """Four hops a micro-batch; without hop 4 where nothing learns below the first cut.

        Forward passes of the bottom come first, then the top's passes, then backward passes of the
        bottom, each of micro-batches in their order (GPipe, Huang et al. 2019, arXiv 1811.06965):
        so gradients are summed in that order too, whatever the link does.
        """
        parts = local.parts(self._in_flight)
        last = len(parts) - 1
        passes = [
            self._through(_Place(step, number, number < last), part)
            for number, part in enumerate(parts)
        ]
        return sum((yield from interleaved(passes)))

    def score(self, step: int, local: LocalStep) -> Exchange[Tally]:
        """Hops 1 and 2."""
        with torch.no_grad():
            h1 = local.up()
        h2 = yield from self._pass_trunk(_Place(step), local, h1, (), training=False)
        return local.score(h2)

    def _through(self, place: _Place, local: LocalStep) -> Exchange[float]:
        """The hops of a micro-batch, or of a whole batch: its part of the mean loss."""
        batch, numbers = local.batch, self._numbers(local)
        at, part = (place.step, numbers), place.micro_batch
        h2 = yield from self._pass_trunk(place, local, local.up(), numbers, training=True)
        loss, slope = local.learn(h2)
        down = local.down_lengths
        shown = local.disguise.slope(slope, down)
        g2 = self._hops.seal("g2", shown, down, *at, micro_batch=part)
        reply = yield Gradients(place.step, g2, micro_batch=part)
        if local.learns_below:
            back = expect(Gradients, reply)
            place.check(back)
            g1 = self._hops.unseal("g1", back.packet, batch.lengths, *at, micro_batch=part)
            local.down(g1)
        else:
            expect(Accepted, reply)
        return loss

    def _numbers(self, local: LocalStep) -> Sequence[int]:
        """Number of each row, for codecs that remember; if none does, the edge need not know."""
        return local.batch.rows if self._hops.codecs.remembering else ()

    def _pass_trunk(
        self,
        place: _Place,
        local: LocalStep,
        h1: Tensor,
        numbers: Sequence[int],
        *,
        training: bool,
    ) -> Exchange[Tensor]:
        hops, lengths, down = self._hops, local.batch.lengths, local.down_lengths
        at, part = (place.step, numbers), place.micro_batch

        def asked(*, full: bool) -> Activations:
            return Activations(
                place.step,
                training,
                lengths,
                hops.seal("h1", h1, lengths, *at, micro_batch=part, full=full),
                numbers,
                marks=marks_of(local.chosen),
                micro_batch=part,
                more=place.more,
            )

        reply = yield asked(full=False)
        if isinstance(reply, Resend):
            reply = yield asked(full=True)
        answer = _answer_to(place, reply)
        try:
            return hops.unseal("h2", answer.packet, down, *at, micro_batch=part)
        except CacheMiss:
            answer = _answer_to(place, (yield Resend(place.step, micro_batch=part)))
            return hops.unseal("h2", answer.packet, down, *at, micro_batch=part)


class Keeping(ThreePart):
    """The trunk is at the edge, and nothing learns below the top."""

    alone = True

    def __init__(self, hops: Hops, kept: Kept) -> None:
        super().__init__(hops)
        self._kept = kept
        self._turn = 0

    def step(self, step: int, local: LocalStep) -> Exchange[float]:  # noqa: ARG002
        """Hops 1 and 2 for rows that are not kept; the edge counts them as steps."""
        places, fresh = self._kept.missing(local.batch.rows), dict[int, Tensor]()
        if places:
            some = local.of(local.batch.take(places), local.disguise)
            with torch.no_grad():
                h1 = some.up()
            numbers, place = self._numbers(some), _Place(self._turn)
            self._turn += 1
            h2 = yield from self._pass_trunk(place, some, h1, numbers, training=True)
            read = local.disguise.read(h2)
            fresh = self._kept.put(some.batch.rows, some.down_lengths, read)
        h2 = self._kept.take(local.batch.rows, fresh)
        loss, _ = local.of(local.batch, Disguise()).learn(h2)
        return loss


class Disclosing:
    """Trunk and head are at the edge, which is told the labels."""

    alone = False

    def __init__(self, hops: Hops) -> None:
        self._hops = hops

    def step(self, step: int, local: LocalStep) -> Exchange[float]:
        """Hop 1 with the labels, and hop 4."""
        back = expect(Gradients, (yield self._told(step, local, training=True)))
        _Place(step).check(back)
        local.down(self._hops.unseal("g1", back.packet, local.batch.lengths, step))
        return back.loss

    def score(self, step: int, local: LocalStep) -> Exchange[Tally]:
        """Hop 1 with the labels; the edge counts."""
        with torch.no_grad():
            asked = self._told(step, local, training=False)
        got = expect(Score, (yield asked))
        return Tally(got.items, got.correct, got.loss * got.items, got.texts, got.whole)

    def _told(self, step: int, local: LocalStep, *, training: bool) -> LabelledActivations:
        lengths, labels = local.batch.lengths, local.batch.labels
        if labels.dim() > 1:
            labels = labels.flatten()[flat_index(lengths)]
        packet = self._hops.seal("h1", local.up(), lengths, step)
        return LabelledActivations(step, training, lengths, tuple(labels.tolist()), packet)


class Alone:
    """The device has it all."""

    alone = True

    def __init__(self, _: Hops) -> None:
        """Nothing crosses a link."""

    def step(self, step: int, local: LocalStep) -> Exchange[float]:  # noqa: ARG002
        """Bottom and top, and back."""
        h1 = local.up().requires_grad_()
        h2 = _above(h1, local)
        loss, slope = local.learn(h2.detach())
        if local.learns_below:
            local.down(torch.autograd.grad(h2, h1, slope)[0])
        return loss
        yield  # makes it an exchange, of no messages

    def score(self, step: int, local: LocalStep) -> Exchange[Tally]:  # noqa: ARG002
        """Bottom and top."""
        with torch.no_grad():
            return local.score(_above(local.up(), local))
        yield


def _above(h1: Tensor, local: LocalStep) -> Tensor:
    """h1 [T, D] as the top takes it, [U, D]."""
    lengths = local.batch.lengths
    padded = unpack(h1, flat_index(lengths), len(lengths), max(lengths))
    return reached(padded, lengths, local.reach, local.chosen)


def _answer_to(place: _Place, reply: Message) -> Activations:
    answer = expect(Activations, reply)
    place.check(answer)
    return answer

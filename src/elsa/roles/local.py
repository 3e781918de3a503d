"""The device's own passes of one local step: bottom, top, and back, a few rows at a time.

With micro-batches the device holds the activations of a few rows only: the top takes the forward
and the backward pass of each in turn, and the bottom, which must wait for the edge in between,
keeps nothing and runs again before its backward pass (Chen et al. 2016, arXiv 1604.06174). The
gradients are those of the whole batch, summed in another order; edge and wire see no difference.

A step may also be cut into parts that go over the link one after the other (`parts`): each is a
step of its own on some of the rows, whose loss and gradients add up to those of the whole.

With recomputing each block keeps only what it is given, and runs again in its backward pass (the
same source): of use where a single row is long, or where the device holds many blocks. The
gradients are the same to the bit.

Shapes: T tokens of the batch without padding, U rows that the top uses of them, D hidden size.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from elsa.core.ragged import Reach, flat_index, pack, predicting, reached_lengths, unpack
from elsa.core.score import IGNORED, Tally, predictions
from elsa.data.batches import Batch
from elsa.model.segment import Segment
from elsa.model.segments import Bottom, Top
from elsa.roles.perturb import Disguise


class LocalStep:
    """A batch on its way through a device.

    Attributes:
        batch: all of its rows.
        disguise: of what the edge sees.
        reach: what the top uses of each sequence.
        chosen: which tokens [T], bool, where that is some of them.
    """

    def __init__(
        self,
        bottom: Bottom,
        top: Top | None,
        adapters: Mapping[str, Tensor],
        batch: Batch,
        disguise: Disguise | None = None,
        micro_batch: int = 0,
        *,
        recompute: bool = False,
        whole: "LocalStep | None" = None,
    ) -> None:
        """Set up; `micro_batch` rows are taken at a time, all if 0.

        A part of a `whole` step takes its weight, and what is kept between passes, from that.

        Without a top, which is then at the edge, there is neither `learn` nor `score`.
        """
        self.batch = batch
        self.disguise = disguise or Disguise()
        self._rows = micro_batch
        self.reach: Reach = top.reach if top else "all"
        self._bottom = bottom
        self._top = top
        self._adapters = adapters
        self._batches = batch.parts(micro_batch or len(batch.lengths))
        self._recompute = recompute
        self._h1: Tensor | None = None
        self._items: int = whole._items if whole else predictions(batch.labels)
        # A part keeps its graph where the whole would: all parts wait for the edge at once.
        self._keeps: bool = whole._keeps if whole else len(self._batches) == 1
        self.chosen = self._chosen(batch)

    def of(self, batch: Batch, disguise: Disguise) -> "LocalStep":
        """Another batch through the same parts with the same adapters."""
        parts = (self._bottom, self._top, self._adapters)
        return LocalStep(*parts, batch, disguise, self._rows, recompute=self._recompute)

    def parts(self, count: int) -> list["LocalStep"]:
        """The step in at most so many parts, of equally many rows but for the last."""
        batches = self.batch.parts(-(-len(self.batch.lengths) // count))
        if len(batches) == 1:
            return [self]
        with_it = (self._bottom, self._top, self._adapters)
        return [
            LocalStep(
                *with_it,
                batch,
                self.disguise.part(number),
                self._rows,
                recompute=self._recompute,
                whole=self,
            )
            for number, batch in enumerate(batches)
        ]

    @property
    def down_lengths(self) -> Sequence[int]:
        """Rows of each sequence at the second cut."""
        return reached_lengths(self.batch.lengths, self.reach, self.chosen)

    @property
    def learns_below(self) -> bool:
        """Whether the bottom has adapters."""
        return bool(self._bottom.adapter_names)

    def up(self) -> Tensor:
        """h1 [T, D], without its graph."""
        if self._keeps:
            self._h1 = self._below(0)
            return self._h1.detach()
        with torch.no_grad():
            return torch.cat([self._below(part) for part in range(len(self._batches))])

    def learn(self, h2: Tensor) -> tuple[float, Tensor]:
        """Mean loss at h2 [U, D] and its gradient there; the top's adapters gather theirs."""
        loss, gradients = 0.0, []
        assert self._top is not None
        for batch, given in zip(self._batches, self._cut(h2), strict=True):
            mine = given.detach().requires_grad_()
            with self._running(self._top):
                part = self._top.learn(*self._above(batch, mine), batch.labels)
            part = part * (predictions(batch.labels) / max(self._items, 1))
            torch.autograd.backward(part)
            loss += float(part.detach())
            gradients.append(torch.zeros_like(mine) if mine.grad is None else mine.grad)
        return loss, gradients[0] if len(gradients) == 1 else torch.cat(gradients)

    def down(self, g1: Tensor) -> None:
        """Backward pass of the bottom from the gradient [T, D] of h1; its adapters gather."""
        if self._h1 is not None:
            torch.autograd.backward(self._h1, g1.to(self._h1.device))
            return
        sizes = [sum(batch.lengths) for batch in self._batches]
        for part, gradient in enumerate(_pieces(g1, sizes)):
            h1 = self._below(part)
            torch.autograd.backward(h1, gradient.to(h1.device))

    @torch.no_grad()
    def score(self, h2: Tensor) -> Tally:
        """Right predictions and losses at h2 [U, D]."""
        total = Tally()
        assert self._top is not None
        for batch, given in zip(self._batches, self._cut(h2), strict=True):
            total += self._top.score(*self._above(batch, given), batch.labels)
        return total

    def _below(self, part: int) -> Tensor:
        batch = self._batches[part]
        self._bottom.bind(self._adapters)
        with self._running(self._bottom):
            states = self._bottom(batch.input_ids, batch.mask, batch.token_types)
        return self.disguise.show(pack(states, _index(batch)), part)

    def _running(self, segment: Segment) -> AbstractContextManager[None]:
        return segment.recomputing(self._adapters) if self._recompute else nullcontext()

    def _above(self, batch: Batch, h2: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the top takes: padded hidden states with their mask, or one row a text."""
        assert self._top is not None
        self._top.bind(self._adapters)
        h2 = self.disguise.read(h2)
        index, chosen = _index(batch), self._chosen(batch)
        if self.reach in ("all", "some"):
            index = index if chosen is None else index[chosen]
            return unpack(h2, index, *batch.input_ids.shape), batch.mask
        return h2[:, None], None

    def _chosen(self, batch: Batch) -> Tensor | None:
        if self.reach != "some":
            return None
        return predicting(batch.labels, batch.lengths, IGNORED)

    def _cut(self, h2: Tensor) -> Sequence[Tensor]:
        rows = [
            sum(reached_lengths(it.lengths, self.reach, self._chosen(it))) for it in self._batches
        ]
        return _pieces(h2, rows)


def _pieces(packed: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    """The rows of a packed tensor, so many at a time."""
    return [packed[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]


def _index(batch: Batch) -> Tensor:
    return flat_index(batch.lengths, batch.input_ids.shape[1])

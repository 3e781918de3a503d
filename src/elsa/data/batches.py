"""Encoded rows and the batches that devices train and evaluate on.

Shapes: R rows, B rows of a batch, S tokens of its longest row. Rows are padded on the right.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elsa.core.ragged import mask_of
from elsa.errors import DataError

IGNORE = -100
"""Label of a padded position: no loss is taken there."""

_WINDOW = 16
"""Batches a bucketing window holds: long enough to sort well, short enough to stay random."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Encoded rows.

    Attributes:
        input_ids: R arrays [tokens of the row], int32, none of them empty.
        token_types: the same for token types, or None for models without.
        labels: [R] int64 classes, or None: then a row's own tokens are its labels (causal LM).
        counted: R arrays [tokens of the row] of bool, which tokens the loss counts as labels of a
            causal LM; None counts all.
    """

    input_ids: Sequence[NDArray[np.int32]]
    token_types: Sequence[NDArray[np.int32]] | None = None
    labels: NDArray[np.int64] | None = None
    counted: Sequence[NDArray[np.bool_]] | None = None

    def __post_init__(self) -> None:
        for column in (self.token_types, self.labels, self.counted):
            assert column is None or len(column) == len(self.input_ids)
        for row, ids in enumerate(self.input_ids):
            if len(ids) == 0:
                raise DataError(f"row {row} (counting from 0) has no tokens after encoding")

    def __len__(self) -> int:
        return len(self.input_ids)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Self:
        """These rows, in this order; token arrays are shared, not copied."""
        return type(self)(
            [self.input_ids[row] for row in rows],
            None if self.token_types is None else [self.token_types[row] for row in rows],
            None if self.labels is None else self.labels[np.asarray(rows, dtype=np.int64)],
            None if self.counted is None else [self.counted[row] for row in rows],
        )


def joined(parts: Sequence[Examples]) -> Examples:
    """The rows of all parts, one after the other; all have the same columns."""
    ids = [row for part in parts for row in part.input_ids]
    types = [row for part in parts for row in part.token_types or ()]
    labels = [part.labels for part in parts if part.labels is not None]
    counted = [row for part in parts for row in part.counted or ()]
    return Examples(ids, types or None, np.concatenate(labels) if labels else None, counted or None)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows, padded to the longest of them.

    Attributes:
        input_ids: [B, S] int64.
        mask: [B, S] int64, 1 at tokens, 0 at padding.
        token_types: [B, S] int64, 0 at padding; or None.
        labels: [B] int64 classes; for causal LM [B, S] int64 (not shifted), -100 at padding and
            at tokens that do not count.
        lengths: tokens of each row, B numbers.
        rows: where the rows lie in the `Examples`, B numbers.
    """

    input_ids: Tensor
    mask: Tensor
    token_types: Tensor | None
    labels: Tensor
    lengths: tuple[int, ...]
    rows: tuple[int, ...]

    def parts(self, rows: int) -> list["Batch"]:
        """The batch cut into batches of so many rows, each padded to its own longest."""
        if rows >= len(self.lengths):
            return [self]
        places = range(len(self.lengths))
        return [self.take(places[at : at + rows]) for at in places[::rows]]

    def take(self, places: Sequence[int]) -> "Batch":
        """The batch of the rows at these places, padded to the longest of them."""
        if list(places) == list(range(len(self.lengths))):
            return self
        lengths = tuple(self.lengths[place] for place in places)
        width, some = max(lengths), torch.tensor(places)
        types = None if self.token_types is None else self.token_types[some, :width]
        labels = self.labels[some] if self.labels.dim() == 1 else self.labels[some, :width]
        ids, mask = self.input_ids[some, :width], self.mask[some, :width]
        return Batch(ids, mask, types, labels, lengths, tuple(self.rows[at] for at in places))


def make_batch(examples: Examples, rows: Sequence[int], pad_id: int) -> Batch:
    """The batch of these rows, in this order."""
    lengths = tuple(len(examples.input_ids[row]) for row in rows)
    input_ids = _padded(examples.input_ids, rows, lengths, pad_id)
    mask = mask_of(lengths)
    if examples.labels is None:
        counted = mask
        if examples.counted is not None:
            counted = _padded(examples.counted, rows, lengths, 0)
        labels = input_ids.masked_fill(counted == 0, IGNORE)
    else:
        labels = torch.from_numpy(examples.labels[np.asarray(rows, dtype=np.int64)])
    types = examples.token_types
    token_types = None if types is None else _padded(types, rows, lengths, 0)
    return Batch(input_ids, mask, token_types, labels, lengths, tuple(int(row) for row in rows))


def _padded(
    column: Sequence[NDArray[np.int32] | NDArray[np.bool_]],
    rows: Sequence[int],
    lengths: tuple[int, ...],
    fill: int,
) -> Tensor:
    out = np.full((len(rows), max(lengths)), fill, np.int64)
    for place, row in enumerate(rows):
        out[place, : lengths[place]] = column[row]
    return torch.from_numpy(out)


class BatchStream:
    """Endless training batches; each epoch has every row exactly once, in a new order.

    The order of an epoch depends on (seed, epoch) alone, so a stream set to a position goes on
    exactly as the uninterrupted one. The last batch of rows that do not fill one is kept, smaller.

    With bucketing an epoch is shuffled, cut into windows of a few batches, sorted by length inside
    each window, cut into batches, and the batches are shuffled: less padding, still random.
    """

    def __init__(
        self, examples: Examples, batch_size: int, seed: int, bucketing: bool, pad_id: int
    ) -> None:
        if len(examples) == 0:
            raise DataError("there are no rows to make training batches of")
        self._examples = examples
        self._batch_size = batch_size
        self._seed = seed
        self._bucketing = bucketing
        self._pad_id = pad_id
        self._lengths = np.array([len(ids) for ids in examples.input_ids])
        self._epoch = -1
        self._plan: list[NDArray[np.int64]] = []
        self.position = 0
        """Batches given so far; set it to go on from there."""

    @property
    def batches_per_epoch(self) -> int:
        """Batches in which each row comes once."""
        return -(-len(self._examples) // self._batch_size)

    def epoch_lengths(self, epoch: int = 0) -> list[tuple[int, ...]]:
        """Tokens of each row of every batch of an epoch, in order."""
        return [tuple(self._lengths[rows].tolist()) for rows in self._plan_of(epoch)]

    def epoch_predicted(self, epoch: int = 0) -> list[tuple[int, ...]]:
        """Tokens of each row of every batch of an epoch that a causal LM learns to predict.

        None of a row's first token, which nothing stands before.
        """
        counted = self._examples.counted
        each = np.maximum(self._lengths - 1, 0)
        if counted is not None:
            each = np.array([int(row[1:].sum()) for row in counted])
        return [tuple(each[rows].tolist()) for rows in self._plan_of(epoch)]

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        epoch, place = divmod(self.position, self.batches_per_epoch)
        if epoch != self._epoch:
            self._plan, self._epoch = self._plan_of(epoch), epoch
        self.position += 1
        return make_batch(self._examples, self._plan[place].tolist(), self._pad_id)

    def _plan_of(self, epoch: int) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng(np.random.SeedSequence((self._seed, epoch)))
        order = generator.permutation(len(self._examples))
        if not self._bucketing:
            return _cut(order, self._batch_size)
        windows = _cut(order, self._batch_size * _WINDOW)
        plan = [
            batch
            for window in windows
            for batch in _cut(
                window[np.argsort(self._lengths[window], kind="stable")], self._batch_size
            )
        ]
        return [plan[place] for place in generator.permutation(len(plan))]


def _cut(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def eval_batches(examples: Examples, batch_size: int, pad_id: int) -> Iterator[Batch]:
    """Each row once, longest first, so that memory peaks at once and padding is least."""
    lengths = np.array([len(ids) for ids in examples.input_ids], dtype=np.int64)
    for rows in _cut(np.argsort(-lengths, kind="stable"), batch_size):
        yield make_batch(examples, rows.tolist(), pad_id)

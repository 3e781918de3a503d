"""Frozen embeddings in fewer bits: the largest tensor that a small device holds.

A table of V words in bfloat16 or in int8 with a scale a word (absolute largest / 127), looked up
row by row; and, where the output matrix is a table too, multiplied by block after block of its
rows, so that it never exists in the precision that the model computes in.

Shapes: V vocabulary, D hidden size, T tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Store = Literal["bfloat16", "int8"]
BLOCK = 2**21
"""Numbers of a table that are in the precision of the model at once."""


@dataclass(frozen=True)
class Table:
    """Rows in few bits.

    Attributes:
        values: [V, D], bfloat16 or int8.
        scales: [V, 1] float32, what each row of `values` stands for a multiple of; None for 1.
    """

    values: Tensor
    scales: Tensor | None

    def rows(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """[...] -> [..., D]."""
        found = self.values[ids]
        if self.scales is None:
            return found.to(dtype)
        return (found * self.scales[ids]).to(dtype)

    def on(self, device: torch.device) -> "Table":
        """The same, lying there."""
        scales = None if self.scales is None else self.scales.to(device)
        return Table(self.values.to(device), scales)

    def product(self, hidden: Tensor) -> Tensor:
        """[T, D] -> [T, V]: `hidden` times each row."""
        out = hidden.new_empty(len(hidden), len(self.values))
        for start, stop, block in self._blocks(hidden.dtype):
            torch.mm(hidden, block.T, out=out[:, start:stop])
        return out if self.scales is None else out.mul_(self.scales.T)

    def back(self, slope: Tensor) -> Tensor:
        """[T, V] -> [T, D]: the adjoint of `product`."""
        out = slope.new_zeros(len(slope), self.values.shape[1], dtype=torch.float32)
        for start, stop, block in self._blocks(slope.dtype):
            part = slope[:, start:stop]
            if self.scales is not None:
                part = (part * self.scales[start:stop].T).to(slope.dtype)
            out += part @ block
        return out.to(slope.dtype)

    def _blocks(self, dtype: torch.dtype) -> Iterator[tuple[int, int, Tensor]]:
        words, size = self.values.shape
        step = max(BLOCK // size, 1)
        for start in range(0, words, step):
            yield start, min(start + step, words), self.values[start : start + step].to(dtype)


def stored(shape: tuple[int, ...], blocks: Callable[[], Iterator[Tensor]], store: Store) -> Table:
    """The table of rows that come block by block.

    Args:
        shape: (V, D).
        blocks: gives all rows, in order.
        store: what they are kept in.
    """
    values = torch.empty(shape, dtype=torch.int8 if store == "int8" else torch.bfloat16)
    scales = torch.empty(shape[0], 1) if store == "int8" else None
    start = 0
    for rows in blocks():
        span = slice(start, start + len(rows))
        if scales is None:
            values[span] = rows
        else:
            wide = rows.float()
            scales[span] = wide.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
            values[span] = (wide / scales[span]).round()
        start += len(rows)
    return Table(values, scales)


class TableEmbedding(nn.Module):
    """Stands for an embedding module."""

    def __init__(self, table: Table, dtype: torch.dtype) -> None:
        """Look up in `table`, giving `dtype`."""
        super().__init__()
        self.table = table
        self.dtype = dtype

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [...] -> [..., D]."""
        return self.table.rows(ids, self.dtype)


class TableOutput(nn.Module):
    """Stands for the output layer of a language model."""

    def __init__(self, table: Table, dtype: torch.dtype) -> None:
        """Multiply by `table`, computing in `dtype`."""
        super().__init__()
        self.table = table
        self.dtype = dtype

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., V]."""
        flat = hidden.flatten(0, -2).to(self.dtype)
        logits: Tensor = _Product.apply(flat, self.table)
        return logits.unflatten(0, hidden.shape[:-1])


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Table) -> Tensor:
        ctx.table = table
        with torch.autocast(hidden.device.type, enabled=False):
            return table.product(hidden)

    @staticmethod
    def backward(ctx: Any, *slope: Tensor) -> tuple[Tensor, None]:
        with torch.autocast(slope[0].device.type, enabled=False):
            return ctx.table.back(slope[0]), None

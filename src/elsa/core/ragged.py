"""Batches without padding: what crosses a cut is [T, D], the tokens of all sequences in a row.

Shapes: B sequences, S tokens of the longest, T = sum of lengths, D hidden size.
Sequences are padded on the right, so positions always count from 0.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Reach = Literal["all", "first", "last", "mean"]
"""What is used of each sequence: every token, one of them, or their mean."""


def mask_of(lengths: Sequence[int], width: int | None = None) -> Tensor:
    """Attention mask [B, S] (int64, 1 = token) of right-padded sequences of these lengths."""
    sizes = torch.as_tensor(lengths)
    columns = torch.arange(width if width is not None else int(sizes.max()))
    return (columns[None, :] < sizes[:, None]).long()


def flat_index(lengths: Sequence[int], width: int | None = None) -> Tensor:
    """Positions [T] (int64) of the tokens inside the flattened padded batch [B * S]."""
    return mask_of(lengths, width).flatten().nonzero().squeeze(1)


def pack(padded: Tensor, index: Tensor) -> Tensor:
    """[B, S, D] -> [T, D]: the tokens alone; differentiable."""
    return padded.flatten(0, 1).index_select(0, index)


def unpack(packed: Tensor, index: Tensor, batch: int, width: int) -> Tensor:
    """[T, D] -> [B, S, D], zeros where padding is; differentiable, inverse of `pack`."""
    if packed.shape[0] == batch * width:
        return packed.view(batch, width, -1)
    padded = packed.new_zeros(batch * width, packed.shape[1])
    return padded.index_copy(0, index, packed).view(batch, width, -1)


def reached(padded: Tensor, lengths: Sequence[int], reach: Reach) -> Tensor:
    """[B, S, D] -> what is used of it: all tokens [T, D], or one row a sequence [B, D]."""
    width = padded.shape[1]
    if reach == "all":
        return pack(padded, flat_index(lengths, width))
    if reach == "first":
        return padded[:, 0]
    sizes = torch.as_tensor(lengths)
    if reach == "last":
        return padded[torch.arange(len(padded)), sizes - 1]
    weights = mask_of(lengths, width) / sizes[:, None]
    return torch.bmm(weights[:, None].to(padded.dtype), padded)[:, 0]


def reached_lengths(lengths: Sequence[int], reach: Reach) -> Sequence[int]:
    """Rows of each sequence in what `reached` gives."""
    return lengths if reach == "all" else (1,) * len(lengths)

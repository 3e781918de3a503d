"""Batches without padding: what crosses a cut is [T, D], the tokens of all sequences in a row.

Shapes: B sequences, S tokens of the longest, T = sum of lengths, D hidden size.
Sequences are padded on the right, so positions always count from 0.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from elsa.core.bits import pack as pack_bits
from elsa.core.bits import unpack as unpack_bits

Reach = Literal["all", "some", "first", "last", "mean"]
"""What is used of each sequence: every token, those chosen, one of them, or their mean."""


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
    return padded.flatten(0, 1).index_select(0, index.to(padded.device))


def unpack(packed: Tensor, index: Tensor, batch: int, width: int) -> Tensor:
    """[T, D] -> [B, S, D], zeros where padding is; differentiable, inverse of `pack`."""
    if packed.shape[0] == batch * width:
        return packed.view(batch, width, -1)
    padded = packed.new_zeros(batch * width, packed.shape[1])
    return padded.index_copy(0, index.to(packed.device), packed).view(batch, width, -1)


def reached(
    padded: Tensor, lengths: Sequence[int], reach: Reach, chosen: Tensor | None = None
) -> Tensor:
    """[B, S, D] -> what is used of it: tokens [T, D], all or `chosen`, or a row a sequence [B, D].

    `chosen` [T], bool, goes with the reach "some".
    """
    width = padded.shape[1]
    if reach in ("all", "some"):
        return pack(padded, flat_index(lengths, width)[... if chosen is None else chosen])
    if reach == "first":
        return padded[:, 0]
    sizes = torch.as_tensor(lengths)
    if reach == "last":
        return padded[torch.arange(len(padded)), sizes - 1]
    weights = mask_of(lengths, width) / sizes[:, None]
    return torch.bmm(weights[:, None].to(padded.device, padded.dtype), padded)[:, 0]


def reached_lengths(
    lengths: Sequence[int], reach: Reach, chosen: Tensor | None = None
) -> Sequence[int]:
    """Rows of each sequence in what `reached` gives."""
    if chosen is not None:
        return tuple(int(part.sum()) for part in chosen.split_with_sizes(list(lengths)))
    return lengths if reach in ("all", "some") else (1,) * len(lengths)


def predicting(labels: Tensor, lengths: Sequence[int], ignored: int) -> Tensor:
    """The tokens that predict a label that counts [T], bool; of a sequence without any, its last.

    Args:
        labels: [B, S] int64, each the target of the token before it, `ignored` where none counts.
        lengths: tokens of each sequence.
        ignored: see above.
    """
    width = labels.shape[1]
    found = torch.zeros(labels.shape, dtype=torch.bool)
    found[:, :-1] = labels[:, 1:] != ignored
    none = (~found.any(1)).nonzero()[:, 0]
    found[none, torch.as_tensor(lengths)[none] - 1] = True
    return found.flatten()[flat_index(lengths, width)]


def marks_of(chosen: Tensor | None) -> bytes:
    """Chosen tokens [T], bool, as a bit each; none where nobody chooses."""
    return b"" if chosen is None else pack_bits(chosen.to(torch.uint8).numpy(), 1)


def chosen_by(marks: bytes, tokens: int) -> Tensor | None:
    """The inverse of `marks_of`, of marks that are long enough for T = `tokens`."""
    return torch.from_numpy(unpack_bits(marks, 1, tokens) != 0) if marks else None

"""From final hidden states to logits and losses.

A language model's logits are the largest tensor of a step (49,152 words: 200 kB a token), so its
loss goes over the tokens in chunks: of each, logits, their softmax and the gradient of the hidden
states are taken and let go, and only that gradient, [T, D], is kept for the backward pass. Tokens
that do not count are left out altogether.

Shapes: B sequences, S tokens, T tokens that count, D hidden size, C labels, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from elsa.core.score import IGNORED, Tally, counted_up, judged
from elsa.model.families import Pooling

Scorer = Callable[[Tensor], Tensor]
"""Final hidden states [T, D] -> logits [T, V]."""
CHUNK = 2**22
"""Logits that exist at once: 85 tokens of 49,152 words, 17 MB in float32."""


def pool(hidden: Tensor, mask: Tensor | None, pooling: Pooling) -> Tensor:
    """[B, S, D] -> [B, D]; `mask` [B, S] is 1 on tokens, None if all are."""
    if pooling == "cls":
        return hidden[:, 0]
    if mask is None:
        return hidden.mean(1) if pooling == "mean" else hidden[:, -1]
    lengths = mask.sum(1)
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
    weights = mask.to(hidden.dtype) / lengths[:, None].to(hidden.dtype)
    return torch.bmm(weights[:, None], hidden)[:, 0]


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, C] at labels [B] (int64)."""
    return F.cross_entropy(logits.float(), labels)


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, S, V] at the labels [B, S] one token on.

    Labels of -100 do not count; 0 if none counts.
    """
    targets = labels[:, 1:].reshape(-1)
    scores = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    total = F.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp(min=1)


def predicting(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The hidden states that predict a label that counts, and those labels.

    Args:
        hidden: [B, S, D].
        labels: [B, S], each the target of the token before it, -100 where it does not count.

    Returns:
        [T, D], differentiable, [T], and the row [T] that each belongs to.
    """
    row, place = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    flat = row * labels.shape[1] + place
    return hidden.flatten(0, 1).index_select(0, flat), labels[row, place + 1], row


def chunked_loss(hidden: Tensor, targets: Tensor, scores: Scorer, rows: int) -> Tensor:
    """Mean cross-entropy of `scores(hidden)` at `targets`, without ever holding all logits.

    Equals the plain one up to rounding. Only `hidden` gets a gradient: what `scores` is made of
    must be frozen.

    Args:
        hidden: [T, D]; T may be 0, then the loss is 0.
        targets: [T] int64.
        scores: applied once to each chunk.
        rows: tokens of a chunk.
    """
    loss: Tensor = _ChunkedLoss.apply(hidden, targets, scores, rows)
    return loss


def chunked_tally(
    hidden: Tensor, targets: Tensor, texts: Tensor, scores: Scorer, rows: int
) -> Tally:
    """Right predictions and losses, without ever holding all logits.

    Args:
        hidden, targets, scores, rows: as in `chunked_loss`.
        texts: [T] int64, number of the text that each prediction belongs to.
    """
    total, right = 0.0, torch.zeros(len(targets), dtype=torch.bool, device=targets.device)
    for start in range(0, len(targets), rows):
        span = slice(start, start + rows)
        loss, right[span] = judged(scores(hidden[span]), targets[span])
        total += loss
    return counted_up(total, right, texts)


class _ChunkedLoss(torch.autograd.Function):
    """The gradient of the hidden states is taken chunk by chunk, while the logits are there."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, scores: Scorer, rows: int) -> Tensor:
        count, wanted = max(len(targets), 1), ctx.needs_input_grad[0]
        total = torch.zeros((), device=hidden.device)
        gradient = torch.zeros_like(hidden) if wanted else None
        for start in range(0, len(targets), rows):
            span = slice(start, start + rows)
            part = hidden[span].detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                logits = scores(part)
            loss, slope = _loss_and_slope(logits.detach(), targets[span])
            total += loss
            if gradient is not None:
                gradient[span] = torch.autograd.grad(logits, part, slope.div_(count))[0]
        ctx.save_for_backward(gradient)
        return total / count

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), None, None, None


def _loss_and_slope(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of logits [T, V] in float32, and its gradient in the logits' dtype.

    In one copy of the logits: shifted, then exp, then softmax, then less one at the targets.
    """
    wide = logits.to(torch.float32, copy=True)
    wide -= wide.amax(-1, keepdim=True)
    picked = wide.gather(-1, targets[:, None])
    wide.exp_()
    sums = wide.sum(-1, keepdim=True)
    loss = (sums.log() - picked).sum()
    wide /= sums
    wide.scatter_add_(-1, targets[:, None], torch.full_like(picked, -1.0))
    return loss, wide.to(logits.dtype)

"""From final hidden states to logits and losses.

Shapes: B sequences, S tokens, D hidden size, C labels, V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from elsa.model.families import Pooling

IGNORED = -100
"""Label of a token whose prediction does not count."""


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

"""How many predictions are right, and their loss."""

from dataclasses import astuple, dataclass

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100


@dataclass(frozen=True)
class Tally:
    """A count of predictions.

    Attributes:
        items: predictions made: rows for classification, target tokens for a language model.
        correct: how many were right.
        loss: sum of their cross-entropies, in nats.
        texts: texts with a prediction.
        whole: how many of them have no wrong one. Of prompts and answers: how many answers greedy
            decoding would give, as a token is predicted from what it should come after.
    """

    items: int = 0
    correct: int = 0
    loss: float = 0.0
    texts: int = 0
    whole: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def accuracy(self) -> float:
        """Share of right predictions; 0 where there are none."""
        return self.correct / self.items if self.items else 0.0

    @property
    def mean_loss(self) -> float:
        """Mean cross-entropy, in nats; 0 where there are no predictions."""
        return self.loss / self.items if self.items else 0.0

    @property
    def whole_share(self) -> float:
        """Share of texts without a wrong prediction; 0 where there are none."""
        return self.whole / self.texts if self.texts else 0.0


def predictions(labels: Tensor) -> int:
    """How many predictions `tally` makes at these labels: rows, or tokens that count."""
    return len(labels) if labels.dim() == 1 else int((labels[:, 1:] != IGNORED).sum())


def tally(logits: Tensor, labels: Tensor) -> Tally:
    """Compare predictions with labels.

    Classification: logits [B, C], labels [B]. Language model: logits [B, S, V], labels [B, S],
    position s predicting label s + 1, labels of -100 not counted.
    """
    texts = torch.arange(len(labels), device=labels.device)
    if labels.dim() > 1:
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:]
        texts = texts.repeat_interleave(labels.shape[1])
        counted = labels.flatten() != IGNORED
        logits, labels, texts = logits[counted], labels.flatten()[counted], texts[counted]
    loss, right = judged(logits, labels)
    return counted_up(loss, right, texts)


def judged(logits: Tensor, targets: Tensor) -> tuple[float, Tensor]:
    """Summed cross-entropy of logits [T, V] at targets [T], and which predictions are right."""
    loss = functional.cross_entropy(logits.float(), targets, reduction="sum")
    return float(loss), logits.argmax(-1) == targets


def counted_up(loss: float, right: Tensor, texts: Tensor) -> Tally:
    """The tally of predictions [T] that belong to texts of these numbers [T]."""
    every, wrong = set(texts.tolist()), set(texts[~right].tolist())
    return Tally(len(right), int(right.sum()), loss, len(every), len(every) - len(wrong))

"""How many predictions are right, and their loss."""

from dataclasses import dataclass

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
    """

    items: int = 0
    correct: int = 0
    loss: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.items + other.items, self.correct + other.correct, self.loss + other.loss)

    @property
    def accuracy(self) -> float:
        """Share of right predictions; 0 where there are none."""
        return self.correct / self.items if self.items else 0.0

    @property
    def mean_loss(self) -> float:
        """Mean cross-entropy, in nats; 0 where there are no predictions."""
        return self.loss / self.items if self.items else 0.0


def tally(logits: Tensor, labels: Tensor) -> Tally:
    """Compare predictions with labels.

    Classification: logits [B, C], labels [B]. Language model: logits [B, S, V], labels [B, S],
    position s predicting label s + 1, labels of -100 not counted.
    """
    if labels.dim() > 1:
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        counted = labels != IGNORED
        logits, labels = logits[counted], labels[counted]
    loss = functional.cross_entropy(logits.float(), labels, reduction="sum")
    correct = (logits.argmax(-1) == labels).sum()
    return Tally(labels.numel(), int(correct), float(loss))

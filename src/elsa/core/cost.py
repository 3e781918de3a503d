"""What a step costs in arithmetic, from shapes alone.

A multiplication with an addition counts as two operations. A frozen layer's backward pass computes
the gradient of its input only, so it costs what its forward pass costs; attention's products have
two inputs that need gradients, so theirs costs twice as much. LoRA's own products and elementwise
work are left out (below 2 % at the ranks in use).

Shapes: B sequences of S_i tokens, T = sum of S_i, D hidden size, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that its cost depends on.

    Attributes:
        blocks: M.
        hidden: D, width of the hidden states.
        block_weights: numbers in the linear layers of one block.
        head_weights: numbers in the head, C * D or V * D.
        head_per_token: whether the head is applied at every token, as in a language model, or
            once a sequence.
    """

    blocks: int
    hidden: int
    block_weights: int
    head_weights: int
    head_per_token: bool


def block_flops(shape: ModelShape, lengths: Sequence[int]) -> float:
    """Operations of one block's forward pass over sequences of these lengths.

    2 * weights * T for the linear layers and 4 * D * sum S_i^2 for scores and mixing.
    """
    return _linear(shape, lengths) + _attention(shape, lengths)


def block_backward_flops(shape: ModelShape, lengths: Sequence[int]) -> float:
    """Operations of one block's backward pass down to its input, its weights frozen.

    2 * weights * T for the linear layers and 8 * D * sum S_i^2 for scores and mixing.
    """
    return _linear(shape, lengths) + 2 * _attention(shape, lengths)


def head_flops(shape: ModelShape, lengths: Sequence[int]) -> float:
    """Operations of the head's forward pass over sequences of these lengths."""
    positions = sum(lengths) if shape.head_per_token else len(lengths)
    return 2.0 * shape.head_weights * positions


def _linear(shape: ModelShape, lengths: Sequence[int]) -> float:
    return 2.0 * shape.block_weights * sum(lengths)


def _attention(shape: ModelShape, lengths: Sequence[int]) -> float:
    return 4.0 * shape.hidden * sum(length**2 for length in lengths)

"""What a local step costs: operations from shapes, memory from what a party holds.

A multiplication with an addition counts as two operations. A frozen layer's backward pass computes
the gradient of its input only, so it costs what its forward pass costs; attention's products have
two inputs that need gradients, so theirs costs twice as much. LoRA's own products and elementwise
work are left out (below 2 % at the ranks in use). Blocks count as alike.

Shapes: B sequences of S_i tokens, T = sum of S_i, D hidden size, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from elsa.core.split import Split

FLOAT32 = 4
COPIES = 7
"""Times that a device holds each trainable number in float32: as the edge sent it, as it is
trained, its gradient, AdamW's two moments, and both as the round before left them."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that its operations depend on.

    Attributes:
        blocks: M.
        hidden: D, width of the hidden states.
        block_weights: numbers in the linear layers of one block.
        head_weights: numbers in the head, C * D or V * D.
        head_per_token: whether the head is applied at every token, as in a language model, or
            once a sequence.
        first: number of the first block with adapters; nothing below it has a backward pass.
    """

    blocks: int
    hidden: int
    block_weights: int
    head_weights: int
    head_per_token: bool
    first: int = 0


@dataclass(frozen=True)
class Passes:
    """Operations of a batch: through one block forward and backward, and through the head."""

    forward: float
    backward: float
    head: float


@dataclass(frozen=True)
class Work:
    """Operations of a local step, in the order in which they are done.

    Attributes:
        bottom: forward pass of the bottom, on the device.
        trunk: forward pass of the trunk, on the edge; both passes of the head, if it is there.
        top: both passes of the top and the head, on the device.
        trunk_backward: on the edge.
        bottom_backward: on the device.
    """

    bottom: float
    trunk: float
    top: float
    trunk_backward: float
    bottom_backward: float

    @property
    def device(self) -> float:
        """All that the device does."""
        return self.bottom + self.top + self.bottom_backward

    @property
    def edge(self) -> float:
        """All that the edge does."""
        return self.trunk + self.trunk_backward


def passes_of(shape: ModelShape, batches: Sequence[Sequence[int]]) -> Passes:
    """Mean operations of batches, each of sequences of these lengths."""
    rows = [length for batch in batches for length in batch]
    return Passes(
        block_flops(shape, rows) / len(batches),
        block_backward_flops(shape, rows) / len(batches),
        head_flops(shape, rows) / len(batches),
    )


def step_work(shape: ModelShape, split: Split, passes: Passes) -> Work:
    """Operations of a local step on a batch that takes these passes."""
    learning = [
        sum(number >= shape.first for number in blocks)
        for blocks in (split.bottom_blocks, split.trunk_blocks)
    ]
    head = 2 * passes.head
    # In the top the gradient goes down through all blocks, with adapters or without.
    return Work(
        bottom=split.bottom * passes.forward,
        trunk=split.trunk * passes.forward + (head if split.head_at_edge else 0.0),
        top=split.top * (passes.forward + passes.backward) + (0.0 if split.head_at_edge else head),
        trunk_backward=learning[1] * passes.backward,
        bottom_backward=learning[0] * passes.backward,
    )


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


@dataclass(frozen=True)
class Tensors:
    """The tensors of a model: bytes of the frozen ones, numbers of the trainable ones.

    Attributes:
        embeddings: bytes; a head that is tied to them costs nothing more.
        blocks: bytes of each block.
        end: bytes of the final norm, and of what else is frozen above the last block.
        adapters: trainable numbers in each block.
        head: trainable numbers in the head.
    """

    embeddings: int
    blocks: tuple[int, ...]
    end: int
    adapters: tuple[int, ...]
    head: int


@dataclass(frozen=True)
class Growth:
    """Bytes that grow with a batch of B sequences padded to S tokens: per B S, and per B S^2."""

    token: float = 0.0
    square: float = 0.0

    def of(self, rows: int, width: int) -> float:
        """Bytes for a batch of `rows` sequences, the longest of `width` tokens."""
        return rows * width * (self.token + width * self.square)


@dataclass(frozen=True)
class Activations:
    """Bytes that a device's step holds at its peak besides what stays, as measured on one.

    Attributes:
        base: with a bottom of one block, or of those without adapters, and a top without blocks.
        bottom: more, for each further block of the bottom.
        top: more, for each block of the top.
        logits: more, for each token whose next one a language model learns to predict.
        chunk: how many of those have their logits at once.
    """

    base: Growth
    bottom: Growth
    top: Growth
    logits: float = 0.0
    chunk: int = 0


@dataclass(frozen=True)
class Memory:
    """Bytes on a device: what stays, and what a step adds at its peak.

    Attributes:
        weights: frozen tensors.
        adapters: trainable numbers, with gradients and moments.
        step: activations of the largest batch, and what is on the wire.
        kept: hidden states, where nothing learns below the top.
    """

    weights: float
    adapters: float
    step: float
    kept: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.adapters + self.step + self.kept


def device_memory(
    tensors: Tensors,
    activations: Activations,
    split: Split,
    batch: tuple[int, int],
    state_bytes: float,
    first: int = 0,
    predicted: int = 0,
) -> Memory:
    """Bytes that a device holds while it trains; not those of its interpreter and libraries.

    Where the head is at the edge this is a bound: the activations were measured with a head.

    Args:
        tensors: of the model.
        activations: of a step.
        split: where the model is cut.
        batch: B and S of its largest batch.
        state_bytes: bytes of one token's hidden state; four of them a token are on the wire, two
            where there is one cut.
        first: number of the first block with adapters.
        predicted: tokens of a batch that a language model learns to predict.
    """
    own = [*split.bottom_blocks, *split.top_blocks]
    ends = 0 if split.head_at_edge else tensors.end
    learning = 0 if split.head_at_edge else tensors.head
    learning += sum(tensors.adapters[number] for number in own)
    hops = {"three-part": 4, "two-part": 2, "whole": 0}[split.layout]
    grown = max(split.bottom - max(first, 1), 0)
    step = activations.base.of(*batch)
    step += grown * activations.bottom.of(*batch) + split.top * activations.top.of(*batch)
    step += activations.logits * min(activations.chunk, predicted)
    return Memory(
        weights=tensors.embeddings + ends + sum(tensors.blocks[number] for number in own),
        adapters=float(COPIES * FLOAT32 * learning),
        step=step + hops * batch[0] * batch[1] * state_bytes,
    )

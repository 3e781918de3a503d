"""How large a model's parts are, and what a device's step holds; no weights are read.

Sizes come from the model's config. Activations are counted in one small step of the real segments,
filled with zeros: every tensor that torch makes is followed from the operation that makes it until
it is let go, so that the peak holds what the backward pass keeps and what comes and goes besides.

Shapes: B sequences, S tokens of the longest, D hidden size.
"""

import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from elsa.core.cost import FLOAT32, Activations, Growth, ModelShape, Tensors
from elsa.core.score import IGNORED
from elsa.core.split import Split
from elsa.model import adapters
from elsa.model.accelerator import CPU
from elsa.model.checkpoint import Checkpoint
from elsa.model.heads import CHUNK
from elsa.model.segment import Segment
from elsa.model.segments import Bottom, Top, Whole
from elsa.model.tasks import Classification, LoraSpec, Task

ROWS = 4
"""B of the steps that are measured."""
WIDTHS = (16, 64)
"""S of the steps that are measured, as far as the model takes so many tokens."""


def shape_of(checkpoint: Checkpoint, task: Task, lora: LoraSpec) -> ModelShape:
    """What the model's operations depend on."""
    whole = _skeleton(checkpoint, task, lora)
    layers = f"{checkpoint.family.layers}."
    linear = sum(
        value.numel()
        for name, value in whole.frozen().items()
        if name.startswith(layers) and value.dim() == 2
    )
    causal = not isinstance(task, Classification)
    classes = task.labels if isinstance(task, Classification) else checkpoint.vocabulary
    return ModelShape(
        blocks=checkpoint.blocks,
        hidden=checkpoint.hidden_size,
        block_weights=linear // checkpoint.blocks,
        head_weights=classes * checkpoint.hidden_size,
        head_per_token=causal,
        first=lora.first,
    )


def tensors_of(checkpoint: Checkpoint, task: Task, lora: LoraSpec) -> Tensors:
    """Bytes of the frozen tensors as they are held, and how many numbers are trained."""
    whole, family = _skeleton(checkpoint, task, lora), checkpoint.family
    blocks, ends = [0] * checkpoint.blocks, {"embeddings": 0, "end": 0}
    embeddings = tuple(f"{path}." for path in family.embeddings)
    for name, value in whole.frozen().items():
        size = _bytes(checkpoint, value)
        if name.startswith(f"{family.layers}."):
            blocks[int(name.removeprefix(f"{family.layers}.").partition(".")[0])] += size
        else:
            ends["embeddings" if name.startswith(embeddings) else "end"] += size
    learning, head = [0] * checkpoint.blocks, 0
    for name, shape in whole.adapter_shapes.items():
        block = adapters.block_of(name)
        if block is None:
            head += shape.numel()
        else:
            learning[block] += shape.numel()
    return Tensors(ends["embeddings"], tuple(blocks), ends["end"], tuple(learning), head)


def activations_of(
    checkpoint: Checkpoint, task: Task, lora: LoraSpec, *, recompute: bool = False
) -> Activations:
    """What a device's step holds at its peak, measured in small ones on the processor.

    A model of less than three blocks can be split in one way only, and has no further blocks.
    """
    checkpoint, learning = replace(checkpoint, device=CPU), replace(lora, first=0)
    growth = partial(_growth, checkpoint, task, recompute=recompute)
    base = growth(learning, (1, 0))
    if checkpoint.blocks < 3:
        more = Growth(), Growth()
    else:
        deeper, higher = (growth(learning, cuts) for cuts in ((2, 0), (1, 1)))
        more = _less(deeper, base), _less(higher, base)
    if lora.first:
        base = growth(replace(lora, first=1), (1, 0))
    if isinstance(task, Classification):
        return Activations(base, *more)
    return Activations(base, *more, *_logits(checkpoint, task, learning))


def device_step(
    checkpoint: Checkpoint, task: Task, lora: LoraSpec, cuts: tuple[int, int]
) -> tuple[Callable[..., None], list[Tensor]]:
    """A device's step on `ROWS` sequences of a given width, but for the wire and the optimizer.

    Args:
        checkpoint: of the model; its weights are not read, zeros stand for them.
        task: what it is trained for.
        lora: its adapters.
        cuts: p and q.

    Returns:
        The step of a width, as `_step` takes it, and the tensors that stay from step to step.
    """
    split = Split.of(checkpoint.blocks, *cuts)
    bottom = Bottom(checkpoint, task, lora, split.bottom_blocks, first=True, last=False, load=False)
    top = Top(checkpoint, task, lora, split.top_blocks, first=False, last=True, load=False)
    trained: dict[str, Tensor] = {}
    for part in (bottom, top):
        _fill(part)
        trained |= {
            name: nn.Parameter(torch.zeros(shape)) for name, shape in part.adapter_shapes.items()
        }
    held = [*bottom.frozen().values(), *top.frozen().values(), *trained.values()]
    return partial(_step, bottom, top, trained), held


def peak_bytes(work: Callable[[], object], held: Iterable[Tensor] = ()) -> int:
    """Most bytes that tensors made by `work` hold at once; those of `held` do not count."""
    live = _Live(held)
    with live:
        work()
    return live.peak


class _Live(TorchDispatchMode):
    """Follows the memory of every tensor that an operation makes."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self._known = {id(it.untyped_storage()): it.untyped_storage() for it in held}
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._now = 0
        self.peak = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._follow(leaf.untyped_storage())
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._known or key in self._watched:
            return
        size = storage.nbytes()

        def free(_: object) -> None:
            del self._watched[key]
            self._now -= size

        self._watched[key] = weakref.ref(storage, free)
        self._now += size
        self.peak = max(self.peak, self._now)


def _bytes(checkpoint: Checkpoint, value: Tensor) -> int:
    """Of a frozen tensor as it is held: word matrices may be kept in few bits."""
    words = value.dim() == 2 and len(value) == checkpoint.vocabulary
    if words and checkpoint.embeddings == "int8":
        return value.numel() + FLOAT32 * len(value)
    if words and checkpoint.embeddings == "bfloat16":
        return 2 * value.numel()
    return value.numel() * checkpoint.dtype.itemsize


def _skeleton(checkpoint: Checkpoint, task: Task, lora: LoraSpec) -> Whole:
    blocks = range(checkpoint.blocks)
    return Whole(checkpoint, task, lora, blocks, first=True, last=True, load=False)


def _growth(
    checkpoint: Checkpoint,
    task: Task,
    lora: LoraSpec,
    cuts: tuple[int, int],
    *,
    recompute: bool,
) -> Growth:
    step, held = device_step(checkpoint, task, lora, cuts)
    step = partial(step, recompute=recompute)
    narrow, wide = (min(width, checkpoint.max_tokens) for width in WIDTHS)
    low, high = (
        peak_bytes(partial(step, width, predicted=1), held) / (ROWS * width)
        for width in (narrow, wide)
    )
    square = max(high - low, 0.0) / max(wide - narrow, 1)
    return Growth(low - square * narrow, square)


def _logits(checkpoint: Checkpoint, task: Task, lora: LoraSpec) -> tuple[float, int]:
    """Bytes of a predicted token's logits with what is made of them, and how many are at once."""
    step, held = device_step(checkpoint, task, lora, (1, 0))
    width = min(WIDTHS[0], checkpoint.max_tokens)
    chunk = max(CHUNK // checkpoint.vocabulary, 1)
    few, all_ = (
        peak_bytes(partial(step, width, predicted=count), held) for count in (1, width - 1)
    )
    more = min(chunk, ROWS * (width - 1)) - min(chunk, ROWS)
    return (all_ - few) / max(more, 1), chunk


def _less(whole: Growth, part: Growth) -> Growth:
    return Growth(whole.token - part.token, whole.square - part.square)


def _fill(segment: Segment) -> None:
    """Give its frozen tensors memory: zeros, which take none before they are read."""
    for _, module, leaf in list(segment._frozen_slots()):
        shape = module._parameters[leaf].shape  # type: ignore[union-attr]
        zeros = torch.zeros(shape, dtype=segment.checkpoint.dtype, device=segment.device)
        module._parameters[leaf] = nn.Parameter(zeros, requires_grad=False)


def _step(
    bottom: Bottom,
    top: Top,
    trained: dict[str, Tensor],
    width: int,
    predicted: int | None = None,
    *,
    recompute: bool = False,
) -> None:
    """A device's step, as `roles.device` takes it, but for the wire.

    A language model learns to predict so many tokens of each row; all if None.
    """
    ids, mask = torch.zeros(2, ROWS, width, dtype=torch.int64)
    mask += 1
    mask[0, -1] = 0
    bottom.bind(trained)
    with bottom.recomputing(trained) if recompute else nullcontext():
        h1 = bottom(ids, mask)
    padded = top.reach in ("all", "some")
    h2 = torch.zeros_like(h1 if padded else h1[:, :1]).requires_grad_()
    top.bind(trained)
    labels = ids[:, 0] if isinstance(top.task, Classification) else ids.clone()
    if predicted is not None and labels.dim() == 2:
        labels[:, predicted + 1 :] = IGNORED
    with top.recomputing(trained) if recompute else nullcontext():
        loss = top.learn(h2, mask if padded else None, labels)
    torch.autograd.backward(loss)
    if h1.requires_grad:
        torch.autograd.backward(h1, torch.zeros_like(h1))

"""Sizes against real segments, read and run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from elsa.core.split import Split
from elsa.model.checkpoint import open_checkpoint
from elsa.model.heads import CHUNK
from elsa.model.segments import build_bottom, build_top, build_trunk
from elsa.model.sizes import activations_of, peak_bytes, shape_of, tensors_of
from elsa.model.tasks import CausalLM, Classification, LoraSpec, Task

LORA = LoraSpec(rank=2, alpha=4)
CASES: list[tuple[str, Task]] = [
    ("bert", Classification(3, "mean")),
    ("llama", Classification(3, "last")),
    ("llama", CausalLM()),
]
Tiny = Callable[[str], Path]


@pytest.fixture
def tiny(bert_dir: Path, llama_dir: Path) -> Tiny:
    return lambda name: {"bert": bert_dir, "llama": llama_dir}[name]


def test_peak_counts_what_lives_at_once() -> None:
    held = torch.zeros(1000)

    def work() -> None:
        kept = held + 1  # 4,000 bytes, to the end
        for _ in range(3):
            gone = kept.double()  # 8,000 at a time: the next is made before this one goes
            del gone
        kept.add_(held)
        held.view(10, 100).t()

    assert peak_bytes(work, [held]) == 12_000


def test_peak_counts_what_a_backward_pass_keeps() -> None:
    weight = nn.Parameter(torch.ones(100))
    values = torch.ones(100)

    def chain(count: int) -> None:
        out = values
        for _ in range(count):
            out = (out * weight).exp()
        out.sum().backward()

    weight.grad = torch.zeros(100)
    few, many = (peak_bytes(lambda n=n: chain(n), [weight, values]) for n in (4, 8))
    # Each link keeps the product's input, which is the exponential before, and nothing else.
    assert many - few == 4 * 400


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tensors_are_those_of_the_segments(tiny: Tiny, case: tuple[str, Task]) -> None:
    name, task = case
    checkpoint = open_checkpoint(tiny(name))
    tensors = tensors_of(checkpoint, task, LORA)
    assert checkpoint.weights.bytes_read == 0
    split = Split.of(checkpoint.blocks, 1, 1)
    bottom, trunk, top = (
        make(checkpoint, split, task, LORA) for make in (build_bottom, build_trunk, build_top)
    )
    own = bottom.frozen() | top.frozen()  # by name, so that a tied head is there once
    expected = sum(value.nbytes for value in own.values())
    assert tensors.embeddings + tensors.end + tensors.blocks[0] + tensors.blocks[-1] == expected
    assert sum(tensors.blocks[1:-1]) == sum(value.nbytes for value in trunk.frozen().values())
    learning = sum(shape.numel() for it in (bottom, top) for shape in it.adapter_shapes.values())
    assert tensors.head + tensors.adapters[0] + tensors.adapters[-1] == learning


@pytest.mark.parametrize("case", CASES, ids=str)
def test_shape_is_that_of_the_linear_layers(tiny: Tiny, case: tuple[str, Task]) -> None:
    name, task = case
    checkpoint = open_checkpoint(tiny(name))
    shape = shape_of(checkpoint, task, LORA)
    trunk = build_trunk(checkpoint, Split.of(shape.blocks, 1, 1), task, LORA)
    linear = sum(value.numel() for value in trunk.frozen().values() if value.dim() == 2)
    assert shape.block_weights * (shape.blocks - 2) == linear
    classes = task.labels if isinstance(task, Classification) else checkpoint.vocabulary
    assert shape.head_weights == classes * checkpoint.hidden_size
    assert shape.head_per_token == isinstance(task, CausalLM)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_activations_grow_with_blocks_and_are_read_off_no_weights(
    tiny: Tiny, case: tuple[str, Task]
) -> None:
    checkpoint = open_checkpoint(tiny(case[0]))
    found = activations_of(checkpoint, case[1], LORA)
    assert checkpoint.weights.bytes_read == 0
    states = 4 * checkpoint.hidden_size
    for part in (found.base, found.bottom, found.top):
        assert part.of(1, 16) > 3 * 16 * states


def test_a_frozen_bottom_keeps_less(tiny: Tiny) -> None:
    checkpoint, task = open_checkpoint(tiny("bert")), CASES[0][1]
    learning, frozen = (
        activations_of(checkpoint, task, LoraSpec(2, 4, first=first)) for first in (0, 1)
    )
    assert frozen.base.of(4, 16) < learning.base.of(4, 16)
    assert frozen.bottom == learning.bottom


@pytest.mark.parametrize("store", ["int8", "bfloat16"])
def test_embeddings_in_few_bits_are_counted_as_they_are_held(tiny: Tiny, store: Any) -> None:
    checkpoint = open_checkpoint(tiny("llama"), embeddings=store)
    split = Split.of(checkpoint.blocks, 1, 1)
    bottom = build_bottom(checkpoint, split, CausalLM(), LORA)
    tensors = tensors_of(checkpoint, CausalLM(), LORA)
    held = sum(value.nbytes for value in bottom.frozen().values())
    assert tensors.embeddings + tensors.blocks[0] == held


def test_logits_of_a_language_model_are_counted_by_the_token(tiny: Tiny, tmp_path: Path) -> None:
    wordy = shutil.copytree(tiny("llama"), tmp_path / "wordy")  # weights are not read
    config = json.loads((wordy / "config.json").read_bytes())
    (wordy / "config.json").write_text(json.dumps(config | {"vocab_size": 4000}))
    checkpoint = open_checkpoint(wordy)
    found = activations_of(checkpoint, CausalLM(), LORA)
    # In float32: a logit, and its softmax that becomes its gradient; beside them what is small.
    assert 8 * checkpoint.vocabulary <= found.logits < 12 * checkpoint.vocabulary + 1000
    assert found.chunk == CHUNK // checkpoint.vocabulary
    assert activations_of(checkpoint, Classification(3, "last"), LORA).logits == 0


def test_blocks_that_run_again_keep_less_the_more_there_are(tiny: Tiny) -> None:
    checkpoint, task = open_checkpoint(tiny("llama")), CausalLM()
    kept, again = (activations_of(checkpoint, task, LORA, recompute=it) for it in (False, True))
    assert again.bottom.of(4, 64) < 0.3 * kept.bottom.of(4, 64)
    assert again.top.of(4, 64) < 0.3 * kept.top.of(4, 64)

"""Costs from shapes, against operations counted in a real block."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer

from elsa.core.cost import (
    Activations,
    Growth,
    Memory,
    ModelShape,
    Tensors,
    block_backward_flops,
    block_flops,
    device_memory,
    head_flops,
    passes_of,
    step_work,
)
from elsa.core.split import Split

SHAPE = ModelShape(blocks=4, hidden=32, block_weights=1000, head_weights=96, head_per_token=False)
LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=5)


def test_a_real_block_takes_what_the_formula_says() -> None:
    config = BertConfig(
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",  # the counter does not know the fused kernel of CPUs
    )
    block = BertLayer(config).requires_grad_(False)
    weights = sum(layer.weight.numel() for layer in block.modules() if isinstance(layer, nn.Linear))
    shape = ModelShape(1, 32, weights, 0, False)
    hidden = torch.randn(3, 7, 32, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        out = block(hidden)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert block_flops(shape, (7, 7, 7)) == forward.get_total_flops()
    assert block_backward_flops(shape, (7, 7, 7)) == backward.get_total_flops()


def test_by_hand() -> None:
    assert block_flops(SHAPE, (2, 3)) == 2 * 1000 * 5 + 4 * 32 * (4 + 9)
    assert block_backward_flops(SHAPE, (2, 3)) == 2 * 1000 * 5 + 8 * 32 * (4 + 9)


@given(LENGTHS, LENGTHS)
def test_batches_cost_what_their_sequences_cost(one: list[int], other: list[int]) -> None:
    assert block_flops(SHAPE, [*one, *other]) == block_flops(SHAPE, one) + block_flops(SHAPE, other)


@pytest.mark.parametrize(("per_token", "positions"), [(False, 2), (True, 5)])
def test_head_is_applied_once_a_sequence_or_once_a_token(per_token: bool, positions: int) -> None:
    shape = ModelShape(4, 32, 1000, 96, per_token)
    assert head_flops(shape, (2, 3)) == 2 * 96 * positions


def test_work_of_a_step_by_hand() -> None:
    passes = passes_of(SHAPE, [(2, 3)])
    forward, backward = block_flops(SHAPE, (2, 3)), block_backward_flops(SHAPE, (2, 3))
    work = step_work(SHAPE, Split(1, 2, 1), passes)
    assert (work.bottom, work.trunk) == (forward, 2 * forward)
    assert (work.bottom_backward, work.trunk_backward) == (backward, 2 * backward)
    assert work.top == forward + backward + 2 * 2 * 96 * 2
    assert work.device == 2 * (forward + backward) + 4 * 96 * 2
    assert work.edge == 2 * (forward + backward)


@given(st.lists(LENGTHS, min_size=1, max_size=4))
def test_mean_passes_are_the_mean_of_the_batches(batches: list[list[int]]) -> None:
    mean = passes_of(SHAPE, batches)
    each = [passes_of(SHAPE, [batch]) for batch in batches]
    for part in ("forward", "backward", "head"):
        expected = sum(getattr(it, part) for it in each) / len(each)
        assert getattr(mean, part) == pytest.approx(expected)


@pytest.mark.parametrize(("first", "bottom", "trunk"), [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_frozen_blocks_have_no_backward_pass(first: int, bottom: int, trunk: int) -> None:
    shape = replace(SHAPE, first=first)
    passes = passes_of(shape, [(2, 3)])
    work = step_work(shape, Split(1, 2, 1), passes)
    assert work.bottom_backward == bottom * passes.backward
    assert work.trunk_backward == trunk * passes.backward


TENSORS = Tensors(embeddings=1000, blocks=(10, 20, 30, 40), end=5, adapters=(1, 2, 3, 4), head=7)
GROWN = Activations(Growth(100, 1), Growth(10), Growth(1))


@pytest.mark.parametrize(
    ("split", "first", "weights", "learning", "step"),
    [
        (Split(1, 3, 0), 0, 1000 + 5 + 10, 7 + 1, 6 * 103),
        (Split(2, 1, 1), 0, 1000 + 5 + 10 + 20 + 40, 7 + 1 + 2 + 4, 6 * (103 + 10 + 1)),
        (Split(2, 1, 1), 2, 1000 + 5 + 10 + 20 + 40, 7 + 1 + 2 + 4, 6 * (103 + 1)),
        (Split(3, 1, 0), 2, 1000 + 5 + 10 + 20 + 30, 7 + 1 + 2 + 3, 6 * (103 + 10)),
    ],
)
def test_memory_by_hand(split: Split, first: int, weights: int, learning: int, step: int) -> None:
    """Two rows of three tokens; 4 bytes of each state for each of the four hops."""
    found = device_memory(TENSORS, GROWN, split, (2, 3), 4.0, first)
    assert found == Memory(weights, 4 * 7 * learning, step + 4 * 6 * 4)
    assert found.total == found.weights + found.adapters + found.step


def test_logits_are_those_of_what_is_predicted_up_to_a_chunk() -> None:
    grown = replace(GROWN, logits=50.0, chunk=3)
    none, two, many = (
        device_memory(TENSORS, grown, Split(1, 3, 0), (2, 3), 4.0, predicted=count).step
        for count in (0, 2, 100)
    )
    assert none == device_memory(TENSORS, GROWN, Split(1, 3, 0), (2, 3), 4.0, predicted=9).step
    assert (two - none, many - none) == (100, 150)

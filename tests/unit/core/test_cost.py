"""Costs from shapes, against operations counted in a real block."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer

from elsa.core.cost import ModelShape, block_backward_flops, block_flops, head_flops

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

"""Binding: many devices, one backbone."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from elsa.core.lowrank import cut, padded
from elsa.core.split import Split
from elsa.errors import AdapterError, SplitError
from elsa.model.checkpoint import Checkpoint, open_checkpoint
from elsa.model.segments import (
    build_bottom,
    build_top,
    build_trunk,
    build_whole,
    initial_adapters,
    join,
)
from elsa.model.tasks import Classification, LoraSpec

LORA = LoraSpec(rank=2, alpha=4)
TASK = Classification(3, "mean")
IDS = torch.arange(3, 15).view(2, 6)


def device(checkpoint: Checkpoint, seed: int) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: nn.Parameter(value + 0.3 * torch.randn(value.shape, generator=generator))
        for name, value in initial_adapters(checkpoint, TASK, LORA, seed).items()
    }


def test_devices_that_share_a_backbone_do_not_meet(bert_dir: Path) -> None:
    checkpoint = open_checkpoint(bert_dir)
    shared, labels = build_whole(checkpoint, TASK, LORA), torch.tensor([0, 2])
    alone = []
    for seed in (1, 2):
        adapters = device(checkpoint, seed)
        own = build_whole(open_checkpoint(bert_dir), TASK, LORA)
        own.bind(adapters)
        own.loss(own(IDS), labels).backward()
        alone.append({name: value.grad for name, value in adapters.items()})

    first, second = device(checkpoint, 1), device(checkpoint, 2)
    shared.bind(first)
    first_loss = shared.loss(shared(IDS), labels)
    shared.bind(second)
    second_loss = shared.loss(shared(IDS), labels)
    # The graph of the first forward outlives the second bind.
    first_loss.backward()
    second_loss.backward()
    for adapters, expected in zip((first, second), alone, strict=True):
        for name, value in adapters.items():
            assert torch.equal(value.grad, expected[name])


def test_parties_of_one_process_build_their_segments_at_once(bert_dir: Path) -> None:
    # Building on the meta device patches torch's modules for all threads.
    checkpoint, split = open_checkpoint(bert_dir), Split(1, 1, 1)
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda _: build_trunk(checkpoint, split, TASK, LORA), range(16))
        assert all(not it.is_meta for part in parts for it in part.frozen().values())
    assert not nn.Linear(2, 2).weight.is_meta


def test_bind_installs_the_very_tensors(bert_dir: Path) -> None:
    checkpoint = open_checkpoint(bert_dir)
    trunk = build_trunk(checkpoint, Split(1, 1, 1), TASK, LORA)
    adapters = device(checkpoint, 1)
    trunk.bind(adapters)
    states = torch.arange(64.0).sin().view(1, 4, 16)
    before = trunk(states)
    with torch.no_grad():
        adapters[trunk.adapter_names[0]].add_(1.0)
    assert not torch.equal(trunk(states), before)


def test_only_adapters_and_head_learn(bert_dir: Path) -> None:
    checkpoint = open_checkpoint(bert_dir)
    whole, adapters = build_whole(checkpoint, TASK, LORA), device(checkpoint, 1)
    whole.bind(adapters)
    learning = {id(value) for value in whole.parameters() if value.requires_grad}
    assert learning == {id(value) for value in adapters.values()}
    assert set(whole.adapter_shapes) == set(adapters)


def test_dropout_is_off_in_training_too(bert_dir: Path) -> None:
    checkpoint = open_checkpoint(bert_dir)
    assert checkpoint.config.hidden_dropout_prob > 0
    whole = build_whole(checkpoint, TASK, LORA)
    whole.bind(device(checkpoint, 1))
    expected = whole(IDS)
    whole.train()
    assert torch.equal(whole(IDS), expected)


def test_what_bind_refuses_leaves_the_old_in_place(bert_dir: Path) -> None:
    checkpoint = open_checkpoint(bert_dir)
    top = build_top(checkpoint, Split(1, 1, 1), TASK, LORA)
    with pytest.raises(AdapterError, match=r"bind adapters before the first forward of blocks \[2"):
        top(torch.ones(1, 4, 16))
    adapters = device(checkpoint, 1)
    top.bind({**adapters, "of another segment": torch.zeros(1)})
    expected = top(torch.ones(1, 4, 16))
    broken = {name: value * 2 for name, value in adapters.items()}
    name = top.adapter_names[-1]
    with pytest.raises(AdapterError, match=r"'base_model.*weight' has shape \[1\], expected \[3"):
        top.bind(broken | {name: torch.zeros(1)})
    del broken[name]
    with pytest.raises(AdapterError, match=r"'base_model.*weight' is missing"):
        top.bind(broken)
    assert torch.equal(top(torch.ones(1, 4, 16)), expected)


def test_factors_of_another_rank_are_scaled_as_those_of_the_common_rank(bert_dir: Path) -> None:
    """alpha / r is the model's: a device of rank 1 computes as if zeros filled its factors up."""
    checkpoint = open_checkpoint(bert_dir)
    whole, adapters = build_whole(checkpoint, TASK, LORA), device(checkpoint, 1)
    small = cut(adapters, 1)
    whole.bind(small)
    expected = whole(IDS)
    whole.bind(padded(small, 2))
    torch.testing.assert_close(whole(IDS), expected)
    whole.bind(adapters)
    assert not torch.allclose(whole(IDS), expected, atol=1e-3)


def test_factors_of_ranks_that_differ_at_one_layer_are_refused(bert_dir: Path) -> None:
    checkpoint = open_checkpoint(bert_dir)
    whole, adapters = build_whole(checkpoint, TASK, LORA), device(checkpoint, 1)
    for name in (it for it in whole.adapter_names[:2]):
        with pytest.raises(AdapterError, match="has shape"):
            whole.bind({**adapters, name: cut(adapters, 1)[name]})


def test_pairs_of_texts_reach_the_embeddings(bert_dir: Path) -> None:
    checkpoint = open_checkpoint(bert_dir)
    bottom = build_bottom(checkpoint, Split(1, 1, 1), TASK, LORA)
    bottom.bind(device(checkpoint, 1))
    types = torch.zeros_like(IDS)
    assert torch.equal(bottom(IDS, None, types), bottom(IDS))
    assert not torch.equal(bottom(IDS, None, types + 1), bottom(IDS))


def test_a_full_mask_is_no_mask(bert_dir: Path) -> None:
    checkpoint = open_checkpoint(bert_dir)
    whole = build_whole(checkpoint, TASK, LORA)
    whole.bind(device(checkpoint, 1))
    torch.testing.assert_close(whole(IDS, torch.ones_like(IDS)), whole(IDS))


def test_splits_and_joins_that_do_not_fit(bert_dir: Path) -> None:
    checkpoint = open_checkpoint(bert_dir)
    with pytest.raises(SplitError, match="a split of 4 blocks, and the model has 3"):
        build_bottom(checkpoint, Split(1, 2, 1), TASK, LORA)
    bottom = build_bottom(checkpoint, Split(1, 1, 1), TASK, LORA)
    trunk = build_trunk(checkpoint, Split(1, 2, 0), TASK, LORA)
    top = build_top(checkpoint, Split(1, 1, 1), TASK, LORA)
    with pytest.raises(SplitError, match=r"cannot join blocks \[0, 1\), blocks \[1, 3\) and"):
        join(bottom, trunk, top)

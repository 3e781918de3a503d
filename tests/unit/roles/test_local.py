"""A local step taken a few rows at a time has the loss and the gradients of the whole."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from elsa.core.score import Tally
from elsa.core.split import Split
from elsa.data.batches import Batch, Examples, make_batch
from elsa.model.checkpoint import open_checkpoint
from elsa.model.segments import build_bottom, build_top, initial_adapters
from elsa.model.tasks import CausalLM, Classification, LoraSpec, Task
from elsa.roles.learner import Learner, OptimizerSettings
from elsa.roles.local import LocalStep

LORA = LoraSpec(2, 4)
TASKS: dict[str, Task] = {
    "words": CausalLM(),
    "some words": CausalLM(),
    "all tokens": Classification(3, "mean"),
    "one row": Classification(3, "last"),
}
CUTS = {"words": (1, 1), "some words": (1, 0), "all tokens": (1, 1), "one row": (1, 0)}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def batch_for(task: Task) -> Batch:
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(40, (n,), generator=generator).numpy() for n in (7, 2, 5, 1, 4)]
    if isinstance(task, Classification):
        return make_batch(Examples(ids, labels=torch.tensor([0, 2, 1, 1, 0]).numpy()), range(5), 0)
    # The second text has no token that counts, the fourth cannot have one.
    counted = [(torch.arange(len(row)) > 2).numpy() for row in ids]
    return make_batch(Examples(ids, counted=counted), range(5), 0)


Taken = tuple[torch.Tensor, float, torch.Tensor, dict[str, torch.Tensor], Tally]


def taken(directory: Path, name: str, micro_batch: int, recompute: bool = False) -> Taken:
    checkpoint, task = open_checkpoint(directory), TASKS[name]
    split = Split.of(3, *CUTS[name])
    generator = torch.Generator().manual_seed(2)
    adapters = {
        key: value + 0.3 * torch.randn(value.shape, generator=generator)
        for key, value in initial_adapters(checkpoint, task, LORA, 0).items()
    }
    learner = Learner(adapters, OptimizerSettings(1e-3, 0.0, False))
    bottom, top = (make(checkpoint, split, task, LORA) for make in (build_bottom, build_top))
    parts, batch = (bottom, top, learner.parameters), batch_for(task)
    step = LocalStep(*parts, batch, None, micro_batch, recompute=recompute)
    h1 = step.up()
    bottom.bind({key: torch.zeros_like(value) for key, value in adapters.items()})  # another's
    # Any states will do where the trunk is left out.
    h2 = h1[:5] if top.reach == "last" else h1 if step.chosen is None else h1[step.chosen]
    loss, g2 = step.learn(h2)
    step.down(torch.ones_like(h1))
    held = {*bottom.adapter_names, *top.adapter_names}
    gradients = {key: learner.parameters[key].grad for key in held}
    assert all(value is not None for value in gradients.values())
    return h1, loss, g2, gradients, step.score(h2)


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("name", TASKS)
def test_micro_batches_change_nothing_but_rounding(llama: Path, name: str, rows: int) -> None:
    h1, loss, g2, gradients, score = taken(llama, name, 0)
    in_parts = taken(llama, name, rows)
    torch.testing.assert_close(in_parts[0], h1, rtol=1e-5, atol=1e-6)
    assert in_parts[1] == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(in_parts[2], g2, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(in_parts[3], gradients, rtol=1e-4, atol=1e-5)
    assert replace(in_parts[4], loss=0.0) == replace(score, loss=0.0)
    assert in_parts[4].loss == pytest.approx(score.loss, rel=1e-5)
    assert score.texts == (3 if name.endswith("words") else 5)


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("name", TASKS)
def test_recomputing_changes_nothing_at_all(llama: Path, name: str, rows: int) -> None:
    h1, loss, g2, gradients, score = taken(llama, name, rows)
    again = taken(llama, name, rows, recompute=True)
    assert torch.equal(again[0], h1)
    assert again[1] == loss
    assert torch.equal(again[2], g2)
    for key, value in gradients.items():
        assert torch.equal(again[3][key], value), key
    assert again[4] == score


def saved_bytes(work: Callable[[], Any]) -> int:
    """Bytes that autograd keeps between forward and backward, each storage once."""
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    return sum(seen.values())


def test_the_bottom_keeps_nothing_between_its_passes(llama: Path) -> None:
    checkpoint, task = open_checkpoint(llama), TASKS["words"]
    adapters = Learner(
        initial_adapters(checkpoint, task, LORA, 0), OptimizerSettings(1e-3, 0.0, False)
    ).parameters
    split = Split.of(3, 1, 1)
    parts = [make(checkpoint, split, task, LORA) for make in (build_bottom, build_top)]
    batch = batch_for(task)
    assert saved_bytes(LocalStep(*parts, adapters, batch, None, 2).up) == 0
    assert saved_bytes(LocalStep(*parts, adapters, batch, None, 0).up) > 1000


def test_a_block_that_is_to_run_again_keeps_what_it_is_given(llama: Path) -> None:
    checkpoint, task, split = open_checkpoint(llama), TASKS["words"], Split.of(3, 2, 0)
    adapters = Learner(
        initial_adapters(checkpoint, task, LORA, 0), OptimizerSettings(1e-3, 0.0, False)
    ).parameters
    parts = [make(checkpoint, split, task, LORA) for make in (build_bottom, build_top)]
    batch = batch_for(task)
    kept = saved_bytes(LocalStep(*parts, adapters, batch, recompute=True).up)
    # One state of every place for each of the two blocks, and what all blocks share: positions.
    states = 4 * batch.input_ids.numel() * checkpoint.hidden_size
    assert kept <= 2 * states + 2000
    assert saved_bytes(LocalStep(*parts, adapters, batch).up) > 10 * states
    assert all("forward" not in vars(layer) for layer in parts[0]._layers())

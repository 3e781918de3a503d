"""Names, order, draws and targets of adapters."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForTokenClassification

from elsa.core.split import Split
from elsa.errors import AdapterError, ModelError
from elsa.model.adapters import block_of, draw, in_order, part_names
from elsa.model.checkpoint import open_checkpoint
from elsa.model.segments import (
    adapter_shapes,
    build_bottom,
    build_top,
    build_trunk,
    build_whole,
    initial_adapters,
)
from elsa.model.tasks import CausalLM, Classification, LoraSpec

# PEFT 0.21 still asks transformers by a name that it has since deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

LORA = LoraSpec(rank=2, alpha=4)
TASK = Classification(5, "mean")


def test_names_are_in_the_form_that_peft_saves(bert_dir: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file

    model = AutoModelForTokenClassification.from_pretrained(bert_dir, num_labels=5)
    config = LoraConfig(r=2, target_modules=["query", "value"], task_type="TOKEN_CLS")
    get_peft_model(model, config).save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    shapes = adapter_shapes(open_checkpoint(bert_dir), TASK, LORA)
    assert {name: tuple(tensor.shape) for name, tensor in saved.items()} == {
        name: tuple(shape) for name, shape in shapes.items()
    }
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"]


@pytest.mark.parametrize("split", [Split(1, 1, 1), Split(2, 1, 0)])
def test_parts_hold_the_whole_s_names_each_once(bert_dir: Path, split: Split) -> None:
    checkpoint = open_checkpoint(bert_dir)
    names = list(adapter_shapes(checkpoint, TASK, LORA))
    assert checkpoint.weights.bytes_read == 0
    parts = {
        "bottom": build_bottom(checkpoint, split, TASK, LORA),
        "trunk": build_trunk(checkpoint, split, TASK, LORA),
        "top": build_top(checkpoint, split, TASK, LORA),
    }
    for part, segment in parts.items():
        assert list(segment.adapter_names) == part_names(names, split, part)
    assert [name for part in parts.values() for name in part.adapter_names] == names
    assert names == list(build_whole(checkpoint, TASK, LORA).adapter_names)


def test_order_is_by_number_not_by_letters() -> None:
    names = ["a.layers.10.x", "a.classifier.weight", "a.layers.9.x", "a.h.2.x"]
    assert in_order(names) == ["a.h.2.x", "a.layers.9.x", "a.layers.10.x", "a.classifier.weight"]
    assert [block_of(name) for name in names] == [10, None, 9, 2]


def test_draw_depends_on_seed_and_name_alone(bert_dir: Path) -> None:
    shapes = adapter_shapes(open_checkpoint(bert_dir), TASK, LORA)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = initial_adapters(open_checkpoint(bert_dir), TASK, LORA, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    alone = {name: draw({name: shape}, 3)[name] for name, shape in shapes.items()}
    assert all(torch.equal(first[name], tensor) for name, tensor in alone.items())
    assert list(first) == list(shapes)
    other = draw(shapes, 4)
    for name, tensor in first.items():
        assert tensor.dtype == torch.float32
        if "lora_B" in name or name.endswith("bias"):
            assert not tensor.any()
        else:
            assert not torch.equal(tensor, other[name])
        if "lora_A" in name:
            assert tensor.abs().max() <= 1 / math.sqrt(16)


def test_building_leaves_the_global_generator_alone(bert_dir: Path) -> None:
    state = torch.get_rng_state()
    build_whole(open_checkpoint(bert_dir), TASK, LORA)
    assert torch.equal(torch.get_rng_state(), state)


def test_fresh_adapters_change_nothing(bert_dir: Path) -> None:
    checkpoint = open_checkpoint(bert_dir)
    model = AutoModelForTokenClassification.from_pretrained(bert_dir, num_labels=5).eval()
    bottom = build_bottom(checkpoint, Split(2, 1, 0), TASK, LORA)
    bottom.bind(initial_adapters(checkpoint, TASK, LORA, seed=0))
    ids = torch.arange(3, 9)[None]
    expected = model.bert(ids, output_hidden_states=True).hidden_states[2]
    assert torch.equal(bottom(ids), expected)


def test_other_targets_and_unknown_ones(bert_dir: Path) -> None:
    checkpoint = open_checkpoint(bert_dir)
    shapes = adapter_shapes(checkpoint, TASK, LoraSpec(2, 4, ("intermediate.dense",)))
    assert sum("intermediate.dense.lora_A" in name for name in shapes) == 3
    assert len(shapes) == 3 * 2 + 2
    with pytest.raises(AdapterError, match=r"'q_proj' is no linear layer of a 'bert' block; all"):
        adapter_shapes(checkpoint, TASK, LoraSpec(2, 4, ("query", "q_proj")))


def test_causal_lm_needs_a_decoder(bert_dir: Path, llama_dir: Path) -> None:
    with pytest.raises(ModelError, match="needs a decoder, and 'bert' is an encoder"):
        adapter_shapes(open_checkpoint(bert_dir), CausalLM(), LORA)
    names = adapter_shapes(open_checkpoint(llama_dir), CausalLM(), LORA)
    assert all(block_of(name) is not None for name in names)

"""Split equals whole, and whole equals the library's own class with PEFT, for every family."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForTokenClassification

from elsa.core.score import tally
from elsa.core.split import Split
from elsa.model import heads
from elsa.model.adapters import lora_config
from elsa.model.attention import attention_of
from elsa.model.checkpoint import Checkpoint, open_checkpoint
from elsa.model.families import FAMILIES
from elsa.model.segments import (
    Whole,
    build_bottom,
    build_top,
    build_trunk,
    build_whole,
    initial_adapters,
    join,
)
from elsa.model.tasks import CausalLM, Classification, LoraSpec, Task

# PEFT 0.21 still asks transformers by a name that it has since deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

LORA = LoraSpec(rank=2, alpha=4)
DECODERS = sorted(name for name, row in FAMILIES.items() if row.causal)
CASES = [(name, Classification(3, row.pooling)) for name, row in sorted(FAMILIES.items())] + [
    (name, CausalLM()) for name in DECODERS
]
HEADS = ("cls.", "lm_head.", "vocab_", "generator_", "decoder.")
Tiny = Callable[[str], Path]


def trainable(checkpoint: Checkpoint, task: Task) -> dict[str, nn.Parameter]:
    """Adapters far from their start: with B = 0 the gradient of A would be 0 everywhere."""
    generator = torch.Generator().manual_seed(5)
    return {
        name: nn.Parameter(value + 0.3 * torch.randn(value.shape, generator=generator))
        for name, value in initial_adapters(checkpoint, task, LORA, seed=1).items()
    }


def batch(task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and labels of ragged texts, longer than the attention windows."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 64, (4, 11), generator=generator)
    lengths = torch.tensor([11, 3, 8, 1])
    mask = (torch.arange(11) < lengths[:, None]).long()
    ids = torch.where(mask.bool(), ids, 0)
    if isinstance(task, CausalLM):
        return ids, mask, torch.where(mask.bool(), ids, -100)
    return ids, mask, torch.tensor([0, 1, 2, 1])


def gradients(adapters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    found = {name: value.grad for name, value in adapters.items()}
    assert all(value is not None for value in found.values())
    return {name: value.clone() for name, value in found.items() if value is not None}


def layers_of(whole: Whole) -> str:
    base = whole.model.base_model
    name = "model" if base is whole.model else f"model.{whole.model.base_model_prefix}"
    return f"{name}.{whole.checkpoint.family.layers}"


def masked(states: Tensor, mask: Tensor, fill: float) -> Tensor:
    return states.detach().masked_fill(mask[..., None] == 0, fill).requires_grad_()


@pytest.mark.parametrize(("name", "task"), CASES, ids=str)
@pytest.mark.parametrize("cuts", [(1, 1), (2, 0)], ids=str)
def test_split_equals_whole_exactly(
    tiny: Tiny, name: str, task: Task, cuts: tuple[int, int]
) -> None:
    checkpoint = open_checkpoint(tiny(name))
    split = Split.of(checkpoint.blocks, *cuts)
    adapters = trainable(checkpoint, task)
    ids, mask, labels = batch(task)

    whole = build_whole(checkpoint, task, LORA)
    whole.bind(adapters)
    cut: list[Tensor] = []
    for number in (split.bottom, split.bottom + split.trunk):
        layer = whole.get_submodule(f"{layers_of(whole)}.{number - 1}")
        layer.register_forward_hook(lambda _, __, states: cut.append(states) or None)
    logits = whole(ids, mask)
    for states in cut:
        states.retain_grad()
    loss = whole.loss(logits, labels)
    loss.backward()
    expected = gradients(adapters)
    for value in adapters.values():
        value.grad = None

    bottom = build_bottom(checkpoint, split, task, LORA)
    trunk = build_trunk(checkpoint, split, task, LORA)
    top = build_top(checkpoint, split, task, LORA)
    for part in (bottom, trunk, top):
        part.bind(adapters)
    # What stands where padding is must not matter: the wire does not carry it.
    h1 = bottom(ids, mask)
    h1_received = masked(h1, mask, 0.0)
    h2 = trunk(h1_received, mask)
    h2_received = masked(h2, mask, 0.5)
    split_logits = top(h2_received, mask)
    split_loss = top.loss(split_logits, labels)
    split_loss.backward()
    h2.backward(h2_received.grad)
    h1.backward(h1_received.grad)

    real = mask.bool() if isinstance(task, CausalLM) else slice(None)
    assert torch.equal(split_logits[real], logits[real])
    assert torch.equal(split_loss, loss)
    tokens = mask.bool()
    for states, received in zip(cut, (h1_received, h2_received), strict=True):
        assert torch.equal(received[tokens], states[tokens])
        assert torch.equal(received.grad[tokens], states.grad[tokens])
        assert not received.grad[~tokens].any()
    got = gradients(adapters)
    differing = {
        key: float((got[key] - value).abs().max() / value.abs().max())
        for key, value in expected.items()
        if not torch.equal(got[key], value)
    }
    assert not differing
    assert all(value.abs().max() > 0 for value in expected.values())


@pytest.mark.parametrize("name", DECODERS)
def test_a_few_logits_at_a_time_are_as_good_as_all(
    tiny: Tiny, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the library does to its logits (caps, scales) is done to each chunk."""
    monkeypatch.setattr(heads, "CHUNK", 64 * 5)  # 5 tokens of 64 words
    checkpoint, task = open_checkpoint(tiny(name)), CausalLM()
    top = build_top(checkpoint, Split.of(checkpoint.blocks, 1, 1), task, LORA)
    adapters = trainable(checkpoint, task)
    top.bind(adapters)
    _, mask, labels = batch(task)
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(*mask.shape, 32, generator=generator).requires_grad_()
    logits = top(states, mask)
    top.loss(logits, labels).backward()
    expected = gradients({name: adapters[name] for name in top.adapter_names})
    down, states.grad = states.grad, None
    for value in adapters.values():
        value.grad = None
    loss = top.learn(states, mask, labels)
    loss.backward()
    torch.testing.assert_close(loss, top.loss(logits, labels), rtol=1e-6, atol=0)
    torch.testing.assert_close(states.grad, down, rtol=1e-5, atol=1e-6)
    for key, value in expected.items():
        assert relative(adapters[key].grad, value) < 1e-5
    got, known = top.score(states.detach(), mask, labels), tally(logits.detach(), labels)
    assert (got.items, got.correct) == (known.items, known.correct)
    assert got.loss == pytest.approx(known.loss, rel=1e-5)


def plain(directory: Path, checkpoint: Checkpoint, task: Task) -> nn.Module:
    """The library's own class with PEFT on top."""
    family = checkpoint.family
    options = {"attn_implementation": attention_of(checkpoint.config)}
    if isinstance(task, CausalLM):
        model = AutoModelForCausalLM.from_pretrained(directory, **options)
    elif family.token_classes:
        model = AutoModelForTokenClassification.from_pretrained(
            directory, num_labels=task.labels, **options
        )
    else:
        model = AutoModel.from_pretrained(directory, **options)
    heads = [family.head] if isinstance(task, Classification) and family.token_classes else None
    return get_peft_model(model, lora_config(family, LORA, 0, modules_to_save=heads)).eval()


def library_logits(
    model: nn.Module, task: Task, adapters: dict[str, nn.Parameter], ids: Tensor, mask: Tensor
) -> Tensor:
    """As the README of an export does: pooled logits of tokens."""
    out = model(input_ids=ids, attention_mask=mask)
    if isinstance(task, CausalLM):
        return out.logits
    if "logits" in out:
        tokens = out.logits
    else:
        weight, bias = (adapters[f"base_model.model.score.{leaf}"] for leaf in ("weight", "bias"))
        tokens = nn.functional.linear(out.last_hidden_state, weight, bias)
    if task.pooling == "mean":
        return (tokens * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    return tokens[torch.arange(len(ids)), mask.sum(1) - 1]


# Largest difference over largest value, float32; measured up to 1.4e-5 for encoders and 1e-6 for
# decoders. Encoders' means are taken before the head here and after it there; decoders leave the
# mask of right padding out here, which lets another kernel run.
TOLERANCE = {False: 5e-5, True: 5e-6}


@pytest.mark.parametrize(("name", "task"), CASES, ids=str)
def test_whole_equals_library(tiny: Tiny, name: str, task: Task) -> None:
    checkpoint = open_checkpoint(tiny(name))
    adapters = trainable(checkpoint, task)
    ids, mask, labels = batch(task)
    whole = build_whole(checkpoint, task, LORA)
    whole.bind(adapters)
    logits = whole(ids, mask)
    whole.loss(logits, labels).backward()
    got = gradients(adapters)

    model = plain(tiny(name), checkpoint, task)
    own = {re.sub(r"(modules_to_save\.)?default\.", "", n): p for n, p in model.named_parameters()}
    theirs = {key: own.get(key, value) for key, value in adapters.items()}
    with torch.no_grad():
        for key, value in theirs.items():
            value.copy_(adapters[key])
            value.grad = None
    expected = library_logits(model, task, theirs, ids, mask)
    whole.loss(expected, labels).backward()

    assert {n for n in own if "lora_" in n} == {n for n in adapters if "lora_" in n}
    real = mask.bool() if isinstance(task, CausalLM) else slice(None)
    worst = {key: relative(got[key], value) for key, value in gradients(theirs).items()}
    worst["logits"] = relative(logits[real], expected[real])
    assert max(worst.values()) <= TOLERANCE[checkpoint.family.causal], worst


def test_a_decoder_that_looks_both_ways_keeps_its_mask(tiny: Tiny, tmp_path: Path) -> None:
    """As in EmbeddingGemma: padding on the right would be seen without one."""
    shutil.copytree(tiny("gemma3_text"), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["use_bidirectional_attention"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint, task = open_checkpoint(tmp_path), Classification(3, "mean")
    adapters = initial_adapters(checkpoint, task, LORA, seed=0)
    whole = build_whole(checkpoint, task, LORA)
    whole.bind(adapters)
    ids, mask, _ = batch(task)
    logits = whole(ids, mask)
    expected = library_logits(plain(tmp_path, checkpoint, task), task, adapters, ids, mask)
    assert relative(logits, expected) <= TOLERANCE[False]
    alone = whole(ids[1:2, :3])
    assert relative(logits[1:2], alone) <= TOLERANCE[False]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_join_inverts_the_split(tiny: Tiny, name: str) -> None:
    checkpoint = open_checkpoint(tiny(name))
    task: Task = CausalLM() if name in DECODERS else Classification(3, "mean")
    split = Split.of(checkpoint.blocks, 1, 2)
    parts = [make(checkpoint, split, task, LORA) for make in (build_bottom, build_trunk, build_top)]
    adapters = trainable(checkpoint, task)
    for part in parts:
        part.bind(adapters)
    joined, whole = join(*parts), build_whole(checkpoint, task, LORA)
    whole.bind(adapters)
    assert joined.adapter_names == whole.adapter_names
    ids, mask, _ = batch(task)
    assert torch.equal(joined(ids, mask), whole(ids, mask))

    prefix = f"{whole.model.base_model_prefix}."
    in_files = {
        key.removeprefix(prefix).replace("embed_out.", "lm_head."): tensor
        for key, tensor in load_file(tiny(name) / "model.safetensors").items()
    }
    for key, tensor in joined.frozen().items():
        assert torch.equal(tensor, in_files.pop(key)), key
    # What is left is of the head that the encoders were made with.
    assert all(key.startswith(HEADS) for key in in_files), list(in_files)


@pytest.mark.parametrize("name", ["bert", "gpt2", "gemma2", "llama"])
def test_bfloat16_split_equals_whole_and_is_on(tiny: Tiny, name: str) -> None:
    task = Classification(3, FAMILIES[name].pooling)
    ids, mask, labels = batch(task)
    exact = build_whole(open_checkpoint(tiny(name)), task, LORA)
    checkpoint = open_checkpoint(tiny(name), torch.bfloat16)
    adapters = trainable(checkpoint, task)
    exact.bind(adapters)
    whole = build_whole(checkpoint, task, LORA)
    whole.bind(adapters)
    logits = whole(ids, mask)
    assert logits.dtype == torch.float32
    assert all(tensor.dtype == torch.bfloat16 for tensor in whole.frozen().values())
    whole.loss(logits, labels).backward()
    expected = gradients(adapters)
    assert all(value.dtype == torch.float32 for value in expected.values())
    for value in adapters.values():
        value.grad = None

    split = Split.of(4, 1, 1)
    parts = [make(checkpoint, split, task, LORA) for make in (build_bottom, build_trunk, build_top)]
    for part in parts:
        part.bind(adapters)
    h1 = parts[0](ids, mask)
    h1_received = masked(h1, mask, 0.0)
    h2 = parts[1](h1_received, mask)
    h2_received = masked(h2, mask, 0.0)
    split_logits = parts[2](h2_received, mask)
    parts[2].loss(split_logits, labels).backward()
    h2.backward(h2_received.grad)
    h1.backward(h1_received.grad)
    assert h1.dtype == h2.dtype == torch.bfloat16
    assert torch.equal(split_logits, logits)
    assert all(torch.equal(gradients(adapters)[key], value) for key, value in expected.items())
    # bfloat16 keeps 8 bits; nothing rounded at all would mean that it was off.
    assert 1e-4 < relative(logits, exact(ids, mask)) < 0.15


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).detach().abs().max() / expected.detach().abs().max())

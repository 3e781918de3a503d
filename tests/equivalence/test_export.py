"""An export gives the same logits in a fresh process that has no elsa, by its own README."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from elsa.core.ragged import mask_of
from elsa.errors import AdapterError
from elsa.model.checkpoint import Checkpoint, open_checkpoint
from elsa.model.export import export_adapter, export_merged
from elsa.model.segments import build_whole, initial_adapters
from elsa.model.tasks import CausalLM, Classification, LoraSpec, Task
from elsa.model.tokenizer import load_tokenizer

LORA = LoraSpec(rank=2, alpha=4)
TEXTS = ["A first text.", "And another one, longer than it."]
CASES: dict[str, tuple[str, Task]] = {
    "bert-mean": ("bert", Classification(3, "mean")),
    "roberta-cls": ("roberta", Classification(3, "cls")),
    "modernbert-mean": ("modernbert", Classification(3, "mean")),
    "llama-last": ("llama", Classification(3, "last")),
    "gpt2-lm": ("gpt2", CausalLM()),
    "gemma2-lm": ("gemma2", CausalLM()),
    "llama-chat": ("llama", CausalLM(chat=True)),
    "olmo2-last": ("olmo2", Classification(3, "last")),
    "bert-frozen": ("bert", Classification(3, "mean")),
    "gpt2-frozen": ("gpt2", CausalLM()),
}

# Runs every README's snippet in its own directory; elsa cannot be imported.
DRIVER = """
import importlib.abc, os, pathlib, re, sys
import numpy

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "elsa":
            raise ImportError("elsa is not here")

sys.meta_path.insert(0, Block())
for directory in sys.argv[1:]:
    os.chdir(directory)
    text = pathlib.Path("README.md").read_text(encoding="utf-8")
    names = {}
    exec(re.search(r"```python\\n(.*?)```", text, re.S).group(1), names)
    numpy.save("logits.npy", names["logits"].numpy())
    if "answer" in names:
        numpy.save("prompt.npy", names["prompt"]["input_ids"].numpy())
        numpy.save("answer.npy", names["answer"].numpy())
assert not any(name.split(".")[0] == "elsa" for name in sys.modules)
"""


def lora_of(key: str) -> LoraSpec:
    """In some cases the first block stays as it is."""
    return replace(LORA, first=1) if key.endswith("frozen") else LORA


def trained(checkpoint: Checkpoint, task: Task, lora: LoraSpec = LORA) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        name: value + 0.3 * torch.randn(value.shape, generator=generator)
        for name, value in initial_adapters(checkpoint, task, lora, seed=0).items()
    }


def logits_of(directory: Path, task: Task, lora: LoraSpec) -> tuple[Tensor, Tensor]:
    """Logits of the whole model on TEXTS, and the mask."""
    checkpoint, tokenizer = open_checkpoint(directory), load_tokenizer(directory)
    encodings = tokenizer.encode(TEXTS, max_tokens=64)
    mask = mask_of([len(encoding.input_ids) for encoding in encodings])
    ids = torch.full(mask.shape, tokenizer.pad_id)
    ids[mask.bool()] = torch.cat([torch.from_numpy(e.input_ids).long() for e in encodings])
    whole = build_whole(checkpoint, task, lora)
    whole.bind(trained(checkpoint, task, lora))
    with torch.no_grad():
        return whole(ids, mask), mask


@pytest.fixture(scope="module")
def exported(
    tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Every case as an adapter and merged, each run by its README in one fresh process."""
    root = tmp_path_factory.mktemp("exports")
    directories: dict[str, Path] = {}
    for key, (name, task) in CASES.items():
        checkpoint = open_checkpoint(tiny(name))
        names = ["red", "green", "blue"] if isinstance(task, Classification) else []
        lora = lora_of(key)
        arguments = (trained(checkpoint, task, lora), checkpoint, task, lora)
        directories[key] = export_adapter(*arguments, root / key, label_names=names)
        directories[f"{key}-merged"] = export_merged(
            *arguments, root / f"{key}-merged", label_names=names
        )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *map(str, directories.values())],
        env=environment | {"HF_HUB_OFFLINE": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return directories


@pytest.mark.parametrize("key", CASES)
def test_adapter_alone_gives_the_same_logits(
    tiny: Callable[[str], Path], exported: dict[str, Path], key: str
) -> None:
    name, task = CASES[key]
    expected, mask = logits_of(tiny(name), task, lora_of(key))
    got = torch.from_numpy(np.load(exported[key] / "logits.npy"))
    real = mask.bool() if isinstance(task, CausalLM) else slice(None)
    # Pooled before or after the head: the same sum in another order.
    torch.testing.assert_close(got[real], expected[real], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key", CASES)
def test_merged_model_gives_the_same_logits(
    tiny: Callable[[str], Path], exported: dict[str, Path], key: str
) -> None:
    name, task = CASES[key]
    expected, mask = logits_of(tiny(name), task, lora_of(key))
    got = torch.from_numpy(np.load(exported[f"{key}-merged"] / "logits.npy"))
    real = mask.bool() if isinstance(task, CausalLM) else slice(None)
    # W + BA is rounded once, W x + B A x twice.
    torch.testing.assert_close(got[real], expected[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("key", ["gpt2-lm", "llama-chat", "llama-chat-merged"])
def test_plain_transformers_generates_what_was_trained_here(
    tiny: Callable[[str], Path], exported: dict[str, Path], key: str
) -> None:
    name, task = CASES[key.removesuffix("-merged")]
    prompt, answer = (
        torch.from_numpy(np.load(exported[key] / f"{part}.npy")) for part in ("prompt", "answer")
    )
    checkpoint, tokenizer = open_checkpoint(tiny(name)), load_tokenizer(tiny(name))
    if isinstance(task, CausalLM) and task.chat:
        (asked,) = tokenizer.encode_chats(
            [[("user", TEXTS[0]), ("assistant", "it")]], max_tokens=64
        )
        assert asked.counted is not None
        assert prompt[0].tolist() == asked.input_ids[~asked.counted].tolist()
    whole = build_whole(checkpoint, task, LORA)
    whole.bind(trained(checkpoint, task, LORA))
    tokens = prompt
    while tokens.shape[1] < answer.shape[1]:
        with torch.no_grad():
            tokens = torch.cat([tokens, whole(tokens)[:, -1:].argmax(-1)], 1)
    assert answer.shape[1] > prompt.shape[1]
    assert torch.equal(tokens, answer)


def test_frozen_blocks_are_not_in_the_adapter(exported: dict[str, Path]) -> None:
    config = json.loads((exported["bert-frozen"] / "adapter_config.json").read_text())
    assert config["layers_to_transform"] == [1, 2, 3]
    assert not any(".layer.0." in name for name in trained_names(exported["bert-frozen"]))


def trained_names(directory: Path) -> list[str]:
    with safe_open(directory / "adapter_model.safetensors", "pt") as file:
        return list(file.keys())


def test_directory_says_what_it_holds(exported: dict[str, Path]) -> None:
    directory = exported["bert-mean"]
    config = json.loads((directory / "adapter_config.json").read_text())
    assert config["task_type"] == "TOKEN_CLS"
    assert config["modules_to_save"] == ["classifier"]
    assert config["target_modules"] == ["query", "value"]
    assert json.loads((directory / "labels.json").read_text()) == ["red", "green", "blue"]
    assert "mean over the tokens" in (directory / "README.md").read_text()
    assert re.search(r"base_model: \S*bert", (directory / "README.md").read_text())


def test_export_replaces_whole_or_not_at_all(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint, task = open_checkpoint(tiny("bert")), Classification(3, "mean")
    adapters = trained(checkpoint, task)
    out = tmp_path / "adapter"
    export_adapter(adapters, checkpoint, task, LORA, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    missing = dict(list(adapters.items())[1:])
    with pytest.raises(AdapterError, match=r"1 adapter tensors are missing.*layer\.0"):
        export_adapter(missing, checkpoint, task, LORA, out)
    with pytest.raises(AdapterError, match="not of this model, first 'other'"):
        export_adapter({**adapters, "other": torch.zeros(1)}, checkpoint, task, LORA, out)
    with pytest.raises(AdapterError, match="2 label names for 3 labels"):
        export_adapter(adapters, checkpoint, task, LORA, out, label_names=["a", "b"])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    export_adapter(adapters, checkpoint, task, LORA, out, label_names=["a", "b", "c"])
    assert json.loads((out / "labels.json").read_text()) == ["a", "b", "c"]
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1

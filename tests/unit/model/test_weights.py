"""A segment reads only its own tensors, and says which one it misses."""

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from elsa.core.split import Split
from elsa.errors import MissingTensorError, ModelError
from elsa.model.checkpoint import open_checkpoint
from elsa.model.segments import build_bottom, build_top, build_trunk, build_whole
from elsa.model.tasks import CausalLM, Classification, LoraSpec
from elsa.model.weights import INDEX, SINGLE, Weights

LORA = LoraSpec(rank=2, alpha=4)
SPLIT = Split(1, 1, 1)


def copy_of(directory: Path, target: Path) -> Path:
    shutil.copytree(directory, target, dirs_exist_ok=True)
    return target


def test_each_part_reads_its_own_names_and_no_others(llama_dir: Path) -> None:
    held = load_file(llama_dir / SINGLE)
    expected = {
        build_bottom: {n for n in held if "embed_tokens" in n or ".layers.0." in n},
        build_trunk: {n for n in held if ".layers.1." in n},
        build_top: {n for n in held if ".layers.2." in n or n == "model.norm.weight"},
    }
    for build, names in expected.items():
        checkpoint = open_checkpoint(llama_dir)
        assert checkpoint.weights.bytes_read == 0
        build(checkpoint, SPLIT, Classification(2, "last"), LORA)
        assert set(checkpoint.weights.names_read) == names
        assert checkpoint.weights.bytes_read == sum(held[name].nbytes for name in names)


def test_bytes_outside_a_segment_are_never_looked_at(llama_dir: Path, tmp_path: Path) -> None:
    clean = build_trunk(open_checkpoint(llama_dir), SPLIT, CausalLM(), LORA).frozen()
    directory = copy_of(llama_dir, tmp_path / "poisoned")
    file = directory / SINGLE
    raw = bytearray(file.read_bytes())
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    for name, entry in json.loads(raw[8:start]).items():
        if name != "__metadata__" and ".layers.1." not in name:
            first, last = entry["data_offsets"]
            raw[start + first : start + last] = b"\xff" * (last - first)
    file.write_bytes(raw)
    poisoned = build_trunk(open_checkpoint(directory), SPLIT, CausalLM(), LORA).frozen()
    assert all(torch.equal(poisoned[name], tensor) for name, tensor in clean.items())


def test_shards_of_other_segments_may_be_absent(sharded_dir: Path, tmp_path: Path) -> None:
    directory = copy_of(sharded_dir, tmp_path / "part")
    files = json.loads((directory / INDEX).read_text())["weight_map"]
    needed = {file for name, file in files.items() if ".layers.1." in name}
    for file in set(files.values()) - needed:
        (directory / file).unlink()
    checkpoint = open_checkpoint(directory)
    assert build_trunk(checkpoint, SPLIT, CausalLM(), LORA).frozen()
    with pytest.raises(MissingTensorError, match=r"model-\S+safetensors: missing, but"):
        build_bottom(checkpoint, SPLIT, CausalLM(), LORA)


def test_segments_and_tied_matrices_share_storage(llama_dir: Path) -> None:
    checkpoint = open_checkpoint(llama_dir)
    bottom = build_bottom(checkpoint, SPLIT, CausalLM(), LORA).frozen()
    top = build_top(checkpoint, SPLIT, CausalLM(), LORA).frozen()
    whole = build_whole(checkpoint, CausalLM(), LORA).frozen()
    name = "embed_tokens.weight"
    assert bottom[name].data_ptr() == top[name].data_ptr() == whole[name].data_ptr()
    assert checkpoint.weights.names_read.count("model.embed_tokens.weight") == 1


def test_old_layer_norm_spelling_and_missing_prefix(bert_dir: Path, tmp_path: Path) -> None:
    tensors = load_file(bert_dir / SINGLE)
    old = {
        "bert."
        + n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for n, tensor in tensors.items()
    }
    save_file(old, tmp_path / SINGLE)
    shutil.copy(bert_dir / "config.json", tmp_path)
    task = Classification(2, "mean")
    expected = build_whole(open_checkpoint(bert_dir), task, LORA).frozen()
    got = build_whole(open_checkpoint(tmp_path), task, LORA).frozen()
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


def test_dtype_of_floating_tensors_only(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2), "b": torch.arange(3)}
    save_file(tensors, tmp_path / SINGLE)
    read = Weights(tmp_path, "model", torch.bfloat16).read({"a": (2,), "b": (3,)})
    assert read["a"].dtype == torch.bfloat16
    assert read["b"].dtype == torch.int64


@pytest.mark.parametrize("change", ["absent", "misshapen"])
def test_missing_and_misshapen_tensors_are_named(
    llama_dir: Path, tmp_path: Path, change: str
) -> None:
    directory = copy_of(llama_dir, tmp_path / change)
    tensors = load_file(directory / SINGLE)
    name = "model.layers.1.mlp.up_proj.weight"
    del tensors[name]
    if change == "misshapen":
        tensors[name] = torch.zeros(3, 16)
    save_file(tensors, directory / SINGLE)
    checkpoint = open_checkpoint(directory)
    build_bottom(checkpoint, SPLIT, CausalLM(), LORA)
    pattern = {
        "absent": r"no tensor 'layers\.1\.mlp\.up_proj\.weight'.*\[24, 16\].*model\.safetensors",
        "misshapen": r"model\.safetensors: tensor '.*up_proj\.weight' has shape \[3, 16\].*\[24",
    }[change]
    with pytest.raises(MissingTensorError, match=pattern):
        build_trunk(checkpoint, SPLIT, CausalLM(), LORA)


def test_directories_without_usable_weights(llama_dir: Path, tmp_path: Path) -> None:
    shutil.copy(llama_dir / "config.json", tmp_path)
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        open_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin can run code when loaded"):
        open_checkpoint(tmp_path)
    (tmp_path / SINGLE).write_bytes((llama_dir / SINGLE).read_bytes()[:5000])
    with pytest.raises(ModelError, match="weights cannot be read"):
        open_checkpoint(tmp_path)

"""A GGUF file becomes a model directory that segments can be built from."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from elsa.errors import ModelError
from elsa.model.checkpoint import open_checkpoint
from elsa.model.gguf import convert_gguf
from elsa.model.segments import build_whole, initial_adapters
from elsa.model.tasks import CausalLM, LoraSpec
from elsa.model.tokenizer import load_tokenizer

D, HEADS, INNER = 32, 2, 64
TOKENS = ["<unk>", "<s>", "</s>", "a", "b", "ab"]


def write(path: Path) -> dict[str, np.ndarray]:
    """A llama of one block, embeddings tied, weights in Q8_0."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(16)
    writer.add_embedding_length(D)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    draw = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(TOKENS), D),
        "blk.0.attn_q": (D, D),
        "blk.0.attn_k": (D, D),
        "blk.0.attn_v": (D, D),
        "blk.0.attn_output": (D, D),
        "blk.0.ffn_gate": (INNER, D),
        "blk.0.ffn_up": (INNER, D),
        "blk.0.ffn_down": (D, INNER),
        "blk.0.attn_norm": (D,),
        "blk.0.ffn_norm": (D,),
        "output_norm": (D,),
    }
    values = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, value in values.items():
        if value.ndim == 1:
            writer.add_tensor(f"{name}.weight", value)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quants.quantize(value, kind)
            writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def test_gguf_becomes_a_plain_directory(tmp_path: Path) -> None:
    values = write(tmp_path / "tiny.gguf")
    out = convert_gguf(tmp_path / "tiny.gguf", tmp_path / "model")
    config = json.loads((out / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    checkpoint = open_checkpoint(out)
    whole = build_whole(checkpoint, CausalLM(), LoraSpec(2, 4))
    whole.bind(initial_adapters(checkpoint, CausalLM(), LoraSpec(2, 4), seed=0))
    up = whole.frozen()["layers.0.mlp.up_proj.weight"].numpy()
    # Q8_0 keeps 1/127 of a block's largest value, bfloat16 1/256 of each.
    assert np.abs(up - values["blk.0.ffn_up"]).max() < 0.03
    ids = load_tokenizer(out).encode(["ab"], max_tokens=8, end=True)[0].input_ids
    assert ids.tolist() == [5, 2]
    assert whole(torch.from_numpy(ids).long()[None]).shape == (1, 2, len(TOKENS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "tiny.gguf"]


def test_files_that_are_no_gguf(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.gguf: no such GGUF file"):
        convert_gguf(tmp_path / "absent.gguf", tmp_path / "model")
    (tmp_path / "broken.gguf").write_bytes(b"GGUFnot really")
    with pytest.raises(ModelError, match=r"broken\.gguf: cannot be read as GGUF"):
        convert_gguf(tmp_path / "broken.gguf", tmp_path / "model")
    assert not (tmp_path / "model").exists()

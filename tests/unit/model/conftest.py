"""Two tiny random models on disk: an encoder and a decoder with tied embeddings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture(scope="session")
def bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved as a bare base model: names in the file have no prefix."""
    return _save(tmp_path_factory.mktemp("bert"), "bert", AutoModel)


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, embeddings tied to the head."""
    return _save(tmp_path_factory.mktemp("llama"), "llama", AutoModelForCausalLM)


@pytest.fixture(scope="session")
def sharded_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The llama of many small files and an index."""
    target = tmp_path_factory.mktemp("sharded")
    return _save(target, "llama", AutoModelForCausalLM, max_shard_size="2KB")


def _save(target: Path, name: str, kind: Any, **options: Any) -> Path:
    config = AutoConfig.for_model(name, **(SIZES | {"tie_word_embeddings": True}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind.from_config(config).save_pretrained(target, **options)
    return target

"""Tiny random models of every family, written once a session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedTokenizerFast,
)

COMMON: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GQA = {"num_key_value_heads": 2}
WINDOW = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
VARIED = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]

# Whatever differs from block to block is switched on: windows shorter than the texts, rotary or
# not, scales by depth; and embeddings are tied in some, not in others.
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"pad_token_id": 1, "bos_token_id": 0},
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 4, "n_heads": 4},
    "electra": {"embedding_size": 16},
    "modernbert": {
        "num_hidden_layers": 5,
        "local_attention": 6,
        "global_attn_every_n_layers": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
    "gpt2": {"scale_attn_by_inverse_layer_idx": True},
    "gpt_neox": {"tie_word_embeddings": False},
    "llama": GQA | {"tie_word_embeddings": True},
    "mistral": GQA | {"sliding_window": 4},
    "qwen2": GQA | WINDOW,
    "qwen3": GQA | WINDOW | {"head_dim": 16, "tie_word_embeddings": True},
    "gemma2": GQA
    | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4, "layer_types": VARIED},
    "gemma3_text": GQA
    | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4, "layer_types": VARIED},
    "phi3": GQA | {"sliding_window": 4, "tie_word_embeddings": True},
    "granite": GQA
    | {
        "embedding_multiplier": 3.0,
        "logits_scaling": 2.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
        "tie_word_embeddings": True,
    },
    "olmo2": GQA,
    "smollm3": GQA
    | {"no_rope_layers": [1, 0, 1, 0], "use_sliding_window": True, "sliding_window": 4},
}
ENCODERS = ("bert", "roberta", "distilbert", "electra", "modernbert")


WORDS = "[PAD] [CLS] [EOS] [UNK] A first text And another one longer than it . ,"


def tokenizer(*, with_types: bool) -> PreTrainedTokenizerFast:
    """Words for tokens; ids as in COMMON."""
    vocabulary = {word: number for number, word in enumerate(WORDS.split())}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        eos_token="[EOS]",
        unk_token="[UNK]",
        chat_template="{% for turn in messages %}{{ turn['content'] }} [EOS] {% endfor %}",
        model_input_names=["input_ids", "attention_mask"]
        + (["token_type_ids"] if with_types else []),
    )


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Family name -> directory of a tiny random model of it."""
    root = tmp_path_factory.mktemp("models")

    def make(name: str) -> Path:
        directory = root / name
        if not directory.exists():
            config = AutoConfig.for_model(name, **(COMMON | CONFIGS[name]))
            kind = AutoModelForMaskedLM if name in ENCODERS else AutoModelForCausalLM
            with torch.random.fork_rng():
                torch.manual_seed(len(name))
                kind.from_config(config).save_pretrained(directory)
            tokenizer(with_types=name in ("bert", "electra")).save_pretrained(directory)
        return directory

    return make

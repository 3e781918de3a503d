"""A quantised GGUF file, turned once into a plain model directory."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from elsa.errors import ModelError
from elsa.model.quiet import quiet
from elsa.record.atomic import replaced_folder


def convert_gguf(gguf_file: str | Path, out_dir: str | Path) -> Path:
    """Write config, tokenizer and bfloat16 safetensors weights of a GGUF causal LM.

    The directory appears whole or not at all; an existing one is replaced.

    Raises:
        ModelError: the file is missing or cannot be read.
    """
    source, out = Path(gguf_file), Path(out_dir)
    if not source.is_file():
        raise ModelError(f"{source}: no such GGUF file")
    with quiet():
        fresh, tokenizer = _read(source)
        with replaced_folder(out) as made:
            fresh.save_pretrained(made)
            tokenizer.save_pretrained(made)
    return out


def _read(source: Path) -> tuple[Any, Any]:
    """Model, in bfloat16, and tokenizer."""
    try:
        read = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    except Exception as error:  # a broken file breaks its reader in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{source}: cannot be read as GGUF ({reason})") from error
    # The library refuses to save a model that it dequantised: its weights go into a fresh one.
    fields = read.config.to_dict()
    for name in ("quantization_config", "_name_or_path"):
        fields.pop(name, None)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device("meta"):
        fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    state = {name: value.to(torch.bfloat16) for name, value in read.state_dict().items()}
    fresh.load_state_dict(state, assign=True, strict=True)
    fresh.tie_weights()
    return fresh, tokenizer

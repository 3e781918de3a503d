"""Surgery: the library's own model without weights, cut down to some blocks, then filled.

The model is built whole, with parameters on the meta device (no memory) and real buffers; then
the blocks of other segments are dropped. So whatever depends on a block's number in the whole
model (attention windows, rotary or not, scales by depth) is the library's own.
"""

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
)
from transformers.initialization import no_init_weights
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from elsa.errors import ModelError
from elsa.model.attention import attention_of
from elsa.model.checkpoint import Checkpoint
from elsa.model.families import Family, Stand
from elsa.model.tasks import CausalLM, Task

BUILDING = threading.Lock()
"""To be held while modules are made: the meta device patches `nn.Module` for all threads."""
OUTPUT = "lm_head.weight"
"""Name of the output matrix of a causal LM."""


class _Through(nn.Module):
    """Stands for an embedding module: hands on the hidden states it is given."""

    def forward(
        self,
        input_ids: Tensor | None = None,  # noqa: ARG002
        inputs_embeds: Tensor | None = None,
        *args: object,  # noqa: ARG002
        **kwargs: object,  # noqa: ARG002
    ) -> Tensor | None:
        return inputs_embeds


class _Zero(nn.Module):
    """Stands for position embeddings that are added outside the embedding module."""

    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Without dimensions: added to bfloat16 states it does not widen them.
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, positions: Tensor) -> Tensor:  # noqa: ARG002
        return self.zero


class _Given(nn.Module):
    """Stands for the whole body of a model: what it is given are the final hidden states."""

    def forward(self, *args: object, inputs_embeds: Tensor, **kwargs: object) -> Any:  # noqa: ARG002
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)


_STANDS: dict[Stand, type[nn.Module]] = {
    "through": _Through,
    "identity": nn.Identity,
    "zero": _Zero,
}


def build_skeleton(checkpoint: Checkpoint, task: Task) -> Any:
    """The library's model of this task, its parameters on the meta device, dropout off.

    To be called under `BUILDING`.

    Raises:
        ModelError: the task does not fit the architecture.
    """
    family = checkpoint.family
    config = copy.deepcopy(checkpoint.config)
    for name, value in vars(config).items():
        if ("dropout" in name or name.endswith("_pdrop")) and isinstance(value, float | int):
            setattr(config, name, 0.0)
    config.use_cache = False
    if isinstance(task, CausalLM):
        if not family.causal:
            raise ModelError(
                f"{checkpoint.directory}: model.task = 'causal-lm' needs a decoder, and "
                f"'{family.model_type}' is an encoder; allowed: 'classification'"
            )
        kind = AutoModelForCausalLM
    else:
        config.num_labels = task.labels
        kind = AutoModelForTokenClassification if family.token_classes else AutoModel
    # Weights are read later: drawing them first, though on the meta device, takes time and sympy.
    with init_empty_weights(include_buffers=False), no_init_weights():
        model = kind.from_config(
            config, dtype=torch.float32, attn_implementation=attention_of(config, checkpoint.dtype)
        )
    model.eval().requires_grad_(requires_grad=False)
    if getattr(model.base_model, "pooler", None) is not None:
        model.base_model.pooler = None
    return model


def keep_blocks(base: Any, family: Family, blocks: range, *, first: bool, last: bool) -> None:
    """Cut a base model down to `blocks`, without embeddings unless first, or norm unless last."""
    layers = base.get_submodule(family.layers)
    base.set_submodule(
        family.layers, nn.ModuleList([layers[number] for number in blocks]), strict=True
    )
    kinds = getattr(base.config, "layer_types", None)
    if kinds is not None:
        base.config.layer_types = [kinds[number] for number in blocks]
    base.config.num_hidden_layers = len(blocks)
    if not first:
        for path, stand in family.embeddings.items():
            if hasattr(base, path):
                base.set_submodule(path, _STANDS[stand](), strict=True)
        if family.multiplier:
            setattr(base, family.multiplier, 1.0)
    if not last and family.final_norm:
        base.set_submodule(family.final_norm, nn.Identity(), strict=True)


def frozen_slots(base: Any, family: Family, start: int) -> Iterator[tuple[str, nn.Module, str]]:
    """(name in the files without base prefix, module, attribute) of a base model's parameters.

    Args:
        base: a base model that `keep_blocks` cut down.
        family: its row in the table.
        start: number of its first block in the whole model.
    """
    layers = f"{family.layers}."
    for path, module in base.named_modules():
        for leaf, parameter in module._parameters.items():
            if parameter is None:
                continue
            name = f"{path}.{leaf}"
            if name.startswith(layers):
                number, rest = name[len(layers) :].split(".", 1)
                name = f"{layers}{start + int(number)}.{rest}"
            yield name, module, leaf


def words_alone(model: Any) -> Callable[[Tensor], Tensor]:
    """The head of a causal LM without its body: final hidden states [T, D] -> logits [T, V].

    It is the library's own forward, caps and scales of logits included, around a body that hands
    on what it is given; modules and weights are the model's own.
    """
    head = copy.copy(model)
    head._modules = dict(model._modules)
    setattr(head, model.base_model_prefix, _Given())

    def words(hidden: Tensor) -> Tensor:
        logits: Tensor = head(inputs_embeds=hidden[None]).logits[0]
        return logits

    return words


def output_name(model: Any) -> str:
    """Name in the files of the output matrix of a causal LM: its own, or the embeddings'."""
    tied: dict[str, str] = getattr(model, "_tied_weights_keys", None) or {}
    source = tied.get(OUTPUT)
    if source is None or not model.config.tie_word_embeddings:
        return OUTPUT
    return source.removeprefix(f"{model.base_model_prefix}.")

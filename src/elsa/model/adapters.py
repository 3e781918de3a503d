"""LoRA adapters by global name: the same name for a tensor however the model is split.

Names are those that PEFT saves, for example
`base_model.model.bert.encoder.layer.3.attention.self.query.lora_A.weight`. A trainable head of
classification goes under `base_model.model.classifier.weight` (or `score`); where devices have
several tasks, that of each under `head.<task>.weight`.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from elsa.core.split import Split
from elsa.errors import AdapterError
from elsa.model.families import Family
from elsa.model.tasks import LoraSpec

PREFIX = "base_model.model."
_HEAD = "head."
Part = Literal["bottom", "trunk", "top"]
Slot = tuple[str, nn.Module, str]
"""(global name, module, attribute) of a trainable tensor."""
_ADAPTER = "default"
_BLOCK = re.compile(r"\.(?:layers?|h)\.(\d+)\.")


def block_of(name: str) -> int | None:
    """Number of the block that an adapter tensor belongs to; None for the head."""
    found = _BLOCK.search(name)
    return int(found.group(1)) if found else None


def head_path(family: Family, task: str) -> str:
    """What the names of a head's tensors begin with; `task` is empty if there is only one."""
    return f"{_HEAD}{task}." if task else f"{PREFIX}{family.head}."


def head_of(name: str) -> str:
    """The task whose head an adapter tensor belongs to; empty for what all devices share."""
    return name.removeprefix(_HEAD).rpartition(".")[0] if name.startswith(_HEAD) else ""


def of_task(adapters: Mapping[str, Tensor], family: Family, task: str) -> dict[str, Tensor]:
    """What all devices share and the head of one task, under the names of a single task's model."""
    own, plain = head_path(family, task), head_path(family, "")
    return {
        plain + name.removeprefix(own) if name.startswith(own) else name: value
        for name, value in adapters.items()
        if head_of(name) in ("", task)
    }


def in_order(names: Sequence[str]) -> list[str]:
    """The names in canonical order: by block, then by name; the head last."""

    def key(name: str) -> tuple[float, str]:
        block = block_of(name)
        return (math.inf if block is None else block, name)

    return sorted(names, key=key)


def part_names(names: Sequence[str], split: Split, part: Part) -> list[str]:
    """Those of `names` that a part holds; the head belongs to the top, or to a trunk at the end."""
    last: Part = "trunk" if split.head_at_edge else "top"
    held: dict[Part, range] = {
        "bottom": split.bottom_blocks,
        "trunk": split.trunk_blocks,
        "top": split.top_blocks,
    }
    return [
        name
        for name in names
        if (part == last if (block := block_of(name)) is None else block in held[part])
    ]


def lora_config(family: Family, lora: LoraSpec, blocks: int, **fields: Any) -> LoraConfig:
    """PEFT's config of these adapters, for a model of so many blocks."""
    alpha = int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha
    return LoraConfig(
        r=lora.rank,
        lora_alpha=alpha,
        target_modules=list(lora.targets or family.targets),
        lora_dropout=0.0,
        fan_in_fan_out=family.transposed,
        layers_to_transform=list(range(lora.first, blocks)) if lora.first else None,
        **fields,
    )


def inject(blocks: nn.ModuleList, start: int, family: Family, lora: LoraSpec) -> None:
    """Wrap the target layers of these blocks; the adapters stay on the meta device.

    Args:
        blocks: to wrap, but for those that stay frozen.
        start: number of the first of them in the model.
        family: of the model.
        lora: the adapters.

    Raises:
        AdapterError: a target is in none of the blocks.
    """
    layers = nn.ModuleList(list(blocks)[max(lora.first - start, 0) :])
    if not len(layers):
        return
    linear = [
        name
        for name, module in layers.named_modules()
        if getattr(module, "weight", None) is not None and module.weight.ndim == 2
    ]
    for target in lora.targets or family.targets:
        if not any(name.endswith(f".{target}") for name in linear):
            allowed = sorted({name.split(".", 1)[1] for name in linear})
            raise AdapterError(
                f"adapter.targets: '{target}' is no linear layer of a '{family.model_type}' "
                f"block; allowed: {', '.join(allowed)}, or their last names"
            )
    config = lora_config(family, replace(lora, first=0), len(layers))
    inject_adapter_in_model(config, layers, _ADAPTER, low_cpu_mem_usage=True)
    for module in layers.modules():
        if isinstance(module, LoraLayer):
            # Under autocast the product is taken in bfloat16 anyway; without, dtypes agree.
            module.cast_input_dtype_enabled = False


def lora_slots(layers: nn.ModuleList, path: str, start: int) -> Iterator[Slot]:
    """Slots of the adapters in these blocks, the first of which has number `start`.

    Args:
        layers: the blocks.
        path: what comes between `base_model.model.` and the block's number.
        start: number of the first block in the whole model.
    """
    for number, layer in enumerate(layers, start):
        for name, module in layer.named_modules():
            if isinstance(module, LoraLayer):
                for side in ("lora_A", "lora_B"):
                    linear = getattr(module, side)[_ADAPTER]
                    yield f"{PREFIX}{path}.{number}.{name}.{side}.weight", linear, "weight"


def other_rank(name: str, adapter: Mapping[str, Tensor], shape: torch.Size) -> bool:
    """Whether a LoRA factor differs from `shape` by its rank alone, and its partner likewise."""
    first, second = name.replace(".lora_B.", ".lora_A."), name.replace(".lora_A.", ".lora_B.")
    if first == second or first not in adapter or second not in adapter:
        return False
    a, b = adapter[first], adapter[second]
    outer = a.shape[1:] == shape[1:] if name == first else b.shape[:-1] == shape[:-1]
    return outer and a.ndim == b.ndim == len(shape) and a.shape[0] == b.shape[-1] > 0


def draw(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """Initial adapters, float32: a draw depends on the seed and the name alone, on no split.

    A is Kaiming-uniform with a = sqrt(5) and B zero, as in PEFT, so the model starts as its base;
    head weights are normal (0, 0.02), head biases zero.
    """
    drawn: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        tensor = torch.zeros(tuple(shape))
        if ".lora_A." in name:
            bound = 1 / math.sqrt(shape[1])
            tensor.uniform_(-bound, bound, generator=generator)
        elif block_of(name) is None and name.endswith(".weight"):
            tensor.normal_(0.0, 0.02, generator=generator)
        drawn[name] = tensor
    return drawn

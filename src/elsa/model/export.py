"""What was learned, for plain transformers and peft: an adapter directory, or a merged model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model, set_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForTokenClassification

from elsa.errors import AdapterError
from elsa.model import card
from elsa.model.adapters import block_of, lora_config
from elsa.model.attention import attention_of
from elsa.model.checkpoint import Checkpoint
from elsa.model.quiet import quiet
from elsa.model.segments import adapter_shapes
from elsa.model.tasks import CausalLM, Classification, LoraSpec, Task
from elsa.model.tokenizer import load_tokenizer
from elsa.record.atomic import replaced_folder


def export_adapter(
    adapters: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    task: Task,
    lora: LoraSpec,
    out_dir: str | Path,
    *,
    base_model: str | None = None,
    label_names: Sequence[str] = (),
) -> Path:
    """Write a PEFT adapter directory, with a README whose snippet needs nothing of elsa.

    Where the library has no token classification class for the architecture, the head lies in
    head.safetensors beside the adapter. The directory appears whole or not at all.

    Args:
        adapters: all trainable tensors, by global name.
        checkpoint: the base model.
        task: what it was trained for.
        lora: its adapters' spec.
        out_dir: directory to write; one that exists is replaced.
        base_model: hub id or directory that the README and the config name; the checkpoint's
            directory by default.
        label_names: names of the labels, in order; numbers by default.

    Raises:
        AdapterError: tensors are missing, too many or misshapen, or label names do not fit.
    """
    tensors = _checked(adapters, checkpoint, task, lora)
    names = _label_names(task, label_names)
    base = base_model or str(checkpoint.directory)
    family = checkpoint.family
    kind, saved = card.kind_of(family, task), None
    if kind == "TOKEN_CLS":
        saved = [family.head]
    config = lora_config(
        family,
        lora,
        checkpoint.blocks,
        task_type=kind,
        modules_to_save=saved,
        base_model_name_or_path=base,
        inference_mode=True,
    )
    head = {name: value for name, value in tensors.items() if block_of(name) is None}
    body = tensors
    if kind == "FEATURE_EXTRACTION":
        body = {name: value for name, value in tensors.items() if name not in head}
    with replaced_folder(Path(out_dir)) as made:
        config.save_pretrained(made)
        _sort_targets(made / "adapter_config.json")
        save_file(body, made / "adapter_model.safetensors", metadata={"format": "pt"})
        if body is not tensors:
            short = {name.rsplit(".", 1)[1]: value for name, value in head.items()}
            save_file(short, made / card.HEAD_FILE, metadata={"format": "pt"})
        if names:
            _write_labels(made, names)
        text = card.adapter_card(base, family, task, lora, attention_of(checkpoint.config))
        (made / "README.md").write_text(text, encoding="utf-8")
    return Path(out_dir)


def export_merged(
    adapters: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    task: Task,
    lora: LoraSpec,
    out_dir: str | Path,
    *,
    label_names: Sequence[str] = (),
) -> Path:
    """Write a plain model directory, tokenizer included, with the adapters added into its weights.

    The whole model is held in memory in float32 while it is merged, and saved in the dtype that
    its config names. Arguments, errors and the head's place are those of `export_adapter`.
    """
    tensors = _checked(adapters, checkpoint, task, lora)
    names = _label_names(task, label_names)
    family, kind = checkpoint.family, card.kind_of(checkpoint.family, task)
    options: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True}
    if isinstance(task, CausalLM):
        loader = AutoModelForCausalLM
    elif kind == "TOKEN_CLS":
        loader = AutoModelForTokenClassification
        options |= {
            "num_labels": task.labels,
            "id2label": dict(enumerate(names)),
            "label2id": {name: number for number, name in enumerate(names)},
        }
    else:
        loader = AutoModel
    head = {name: value for name, value in tensors.items() if block_of(name) is None}
    short = {name.rsplit(".", 1)[1]: value for name, value in head.items()}
    dtype = checkpoint.config.dtype or torch.float32
    with quiet(), replaced_folder(Path(out_dir)) as made:
        plain = loader.from_pretrained(checkpoint.directory, **options)
        wrapped = get_peft_model(plain, lora_config(family, lora, checkpoint.blocks))
        set_peft_model_state_dict(
            wrapped, {name: value for name, value in tensors.items() if name not in head}
        )
        merged = wrapped.merge_and_unload()
        if kind == "TOKEN_CLS":
            merged.get_submodule(family.head).load_state_dict(short)
        merged.to(dtype).save_pretrained(made)
        load_tokenizer(checkpoint.directory).save(made)
        if kind == "FEATURE_EXTRACTION":
            save_file(short, made / card.HEAD_FILE, metadata={"format": "pt"})
        if names:
            _write_labels(made, names)
        text = card.merged_card(family, task, attention_of(checkpoint.config))
        (made / "README.md").write_text(text, encoding="utf-8")
    return Path(out_dir)


def _checked(
    adapters: Mapping[str, Tensor], checkpoint: Checkpoint, task: Task, lora: LoraSpec
) -> dict[str, Tensor]:
    shapes = adapter_shapes(checkpoint, task, lora)
    missing = [name for name in shapes if name not in adapters]
    if missing:
        raise AdapterError(
            f"cannot export: {len(missing)} adapter tensors are missing, first '{missing[0]}'"
        )
    surplus = [name for name in adapters if name not in shapes]
    if surplus:
        raise AdapterError(
            f"cannot export: {len(surplus)} adapter tensors are not of this model, first "
            f"'{surplus[0]}'"
        )
    for name, shape in shapes.items():
        if adapters[name].shape != shape:
            raise AdapterError(
                f"cannot export: adapter tensor '{name}' has shape "
                f"{list(adapters[name].shape)}, expected {list(shape)}"
            )
    return {name: adapters[name].detach().float().contiguous() for name in shapes}


def _label_names(task: Task, names: Sequence[str]) -> list[str]:
    if not isinstance(task, Classification):
        return []
    if names and len(names) != task.labels:
        raise AdapterError(f"cannot export: {len(names)} label names for {task.labels} labels")
    return list(names) or [str(number) for number in range(task.labels)]


def _sort_targets(path: Path) -> None:
    """PEFT keeps them in a set, whose order changes from process to process."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["target_modules"] = sorted(fields["target_modules"])
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_labels(directory: Path, names: Sequence[str]) -> None:
    text = json.dumps(list(names), ensure_ascii=False, indent=1) + "\n"
    (directory / card.LABELS_FILE).write_text(text, encoding="utf-8")

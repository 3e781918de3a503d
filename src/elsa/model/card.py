"""The README of an exported model: how plain transformers and peft load it."""

import json
from typing import Literal

from elsa.model.families import Family, Pooling
from elsa.model.tasks import CausalLM, Classification, LoraSpec, Task

Kind = Literal["TOKEN_CLS", "FEATURE_EXTRACTION", "CAUSAL_LM"]
"""PEFT's task types that exports use."""
HEAD_FILE = "head.safetensors"
LABELS_FILE = "labels.json"

_AUTO: dict[Kind, str] = {
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "FEATURE_EXTRACTION": "AutoModel",
    "CAUSAL_LM": "AutoModelForCausalLM",
}
_POOLED: dict[Pooling, tuple[str, str]] = {
    "mean": (
        "the mean over the tokens",
        'mask = batch["attention_mask"][..., None]\n'
        "logits = (token_logits * mask).sum(1) / mask.sum(1)",
    ),
    "cls": ("those of the first token", "logits = token_logits[:, 0]"),
    "last": (
        "those of the last token",
        'last = batch["attention_mask"].sum(1) - 1\n'
        "logits = token_logits[torch.arange(len(texts)), last]",
    ),
}


_CONTINUE = [
    'prompt = tokenizer(texts[:1], return_tensors="pt")',
    "answer = model.generate(**prompt, max_new_tokens=20, do_sample=False)",
    'print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :]))',
]
_CHAT = [
    "prompt = tokenizer.apply_chat_template(",
    '    [{"role": "user", "content": texts[0]}],',
    '    add_generation_prompt=True, return_tensors="pt", return_dict=True,',
    ")",
    *_CONTINUE[1:],
]


def kind_of(family: Family, task: Task) -> Kind:
    """Which of PEFT's task types an export has."""
    if isinstance(task, CausalLM):
        return "CAUSAL_LM"
    return "TOKEN_CLS" if family.token_classes else "FEATURE_EXTRACTION"


def adapter_card(base: str, family: Family, task: Task, lora: LoraSpec, attention: str) -> str:
    """README of an adapter directory.

    Args:
        base: hub id or directory of the base model.
        family: its row in the table.
        task: what the adapters were trained for.
        lora: the adapters' spec.
        attention: the attention kernel that they were trained with.
    """
    kind = kind_of(family, task)
    targets = ", ".join(lora.targets or family.targets)
    front = f"---\nbase_model: {base}\nlibrary_name: peft\ntags: [lora]\n---\n"
    about = (
        f"# LoRA adapters for {base}\n\n"
        f"Rank {lora.rank}, alpha {lora.alpha:g}, on {targets}. "
        f"{_about(kind, task)} Run in this directory:\n"
    )
    load = [
        f"base = {json.dumps(base)}",
        "tokenizer = AutoTokenizer.from_pretrained(base)",
        *_tokenizer_lines(),
        f"model = {_AUTO[kind]}.from_pretrained(",
        f'    base, {_labels_argument(kind)}dtype=torch.float32, attn_implementation="{attention}"',
        ")",
        'model = PeftModel.from_pretrained(model, ".").eval()',
    ]
    imports = ["from peft import PeftModel"]
    return front + about + _snippet(kind, task, imports, load)


def merged_card(family: Family, task: Task, attention: str) -> str:
    """README of a merged model; arguments as in `adapter_card`."""
    kind = kind_of(family, task)
    about = f"# A model with merged adapters\n\n{_about(kind, task)} Run in this directory:\n"
    load = [
        'tokenizer = AutoTokenizer.from_pretrained(".")',
        *_tokenizer_lines(),
        f"model = {_AUTO[kind]}.from_pretrained(",
        f'    ".", dtype=torch.float32, attn_implementation="{attention}"',
        ").eval()",
    ]
    return about + _snippet(kind, task, [], load)


def _about(kind: Kind, task: Task) -> str:
    if not isinstance(task, Classification):
        return "A causal language model."
    rule = _POOLED[task.pooling][0]
    where = f"; the head lies in `{HEAD_FILE}`" if kind == "FEATURE_EXTRACTION" else ""
    return (
        f"Text classification into {task.labels} labels (`{LABELS_FILE}`). The head gives every "
        f"token logits, and a text's logits are {rule}{where}."
    )


def _tokenizer_lines() -> list[str]:
    return [
        "tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token",
        'tokenizer.padding_side = "right"',
    ]


def _labels_argument(kind: Kind) -> str:
    return "num_labels=len(labels), " if kind == "TOKEN_CLS" else ""


def _snippet(kind: Kind, task: Task, imports: list[str], load: list[str]) -> str:
    lines = ["import json", "from pathlib import Path", ""] if kind != "CAUSAL_LM" else []
    lines += ["import torch", *imports]
    if kind == "FEATURE_EXTRACTION":
        lines.append("from safetensors.torch import load_file")
    lines += [f"from transformers import {_AUTO[kind]}, AutoTokenizer", ""]
    if kind != "CAUSAL_LM":
        lines.append(f'labels = json.loads(Path("{LABELS_FILE}").read_text(encoding="utf-8"))')
    lines += ['texts = ["A first text.", "And another one, longer than it."]', "", *load, ""]
    lines += ['batch = tokenizer(texts, padding=True, return_tensors="pt")']
    lines.append("with torch.no_grad():")
    if isinstance(task, CausalLM):
        lines += ["    logits = model(**batch).logits  # texts, tokens, vocabulary"]
        lines += _CHAT if task.chat else _CONTINUE
    elif kind == "TOKEN_CLS":
        lines.append("    token_logits = model(**batch).logits")
    else:
        lines += [
            "    hidden = model(**batch).last_hidden_state",
            f'head = load_file("{HEAD_FILE}")',
            'token_logits = hidden @ head["weight"].T + head["bias"]',
        ]
    if isinstance(task, Classification):
        lines += [
            _POOLED[task.pooling][1],
            "print([labels[number] for number in logits.argmax(-1)])",
        ]
    return "\n```python\n" + "\n".join(lines) + "\n```\n"

"""What a device must hold in a local step: the analytic sum that its memory is set against.

Frozen tensors of its segments, embeddings that are tied to the head once; each adapter four times
in float32 (itself, its gradient, AdamW's two moments); what autograd keeps of the bottom and of the
top; the four hidden states on the wire; one chunk of logits, of the tokens that count.
"""

from pathlib import Path
from typing import Any

import torch

from elsa.config.schema import Config
from elsa.core.cost import FLOAT32
from elsa.core.secret import SecretSeed
from elsa.core.split import Split
from elsa.data.sources import load_table
from elsa.engine.build import device_of, halves
from elsa.engine.codecs import hop_codecs
from elsa.engine.directions import Directions
from elsa.engine.parts import ModelParts, columns_of, encode, load_model, model_directory
from elsa.engine.prices import Prices
from elsa.model.heads import CHUNK, predicting
from elsa.model.segments import initial_adapters
from elsa.model.tokenizer import load_tokenizer
from elsa.roles.device import Device
from elsa.roles.learner import Learner, OptimizerSettings
from elsa.roles.local import LocalStep

NAME = "device-0"
LOGITS = 8
"""Bytes of a logit: bfloat16, its softmax in float32, and its gradient in bfloat16."""


def opened(config: Config, rows: Path) -> tuple[Device, ModelParts]:
    """The device as its process builds it."""
    directory = model_directory(config.model.path, lambda _: None)
    model = load_model(config, len(config.data.labels), directory)
    tokenizer = load_tokenizer(directory)
    examples = encode(load_table(str(rows), columns_of(config, config.data)), tokenizer, config)
    hidden = model.checkpoint.hidden_size
    codecs = hop_codecs(config.wire, hidden, Directions(_no_axes, hidden), NAME)
    own = halves(examples, config.data.holdout_fraction, config.run.seed, 0)
    secret = SecretSeed(bytes(32))
    return device_of(config, model, tokenizer.pad_id, own, codecs, NAME, 0, secret), model


def sums(config: Config, rows: Path, steps: int) -> dict[str, float]:
    """Bytes by kind, of the one of the first `steps` that needs most; "plan": by the plan."""
    device, model = opened(config, rows)
    stream = device.stream()
    needs = [_needed(device, model, config, next(stream)) for _ in range(steps)]
    prices = Prices(config, model)
    split = Split.of(model.checkpoint.blocks, config.split.bottom, config.split.top)
    each = list(zip(stream.epoch_lengths(), stream.epoch_predicted(), strict=True))[:steps]
    plan = max(prices.memory(prices.demand([it], [count]), split).total for it, count in each)
    most = needs[max(range(steps), key=lambda step: sum(needs[step].values()))]
    return {**most, "plan": plan}


def _needed(device: Device, model: ModelParts, config: Config, batch: Any) -> dict[str, float]:
    held = device.segments
    parts = [part for part in (held.bottom, held.top) if part is not None]
    frozen = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for part in parts
        for tensor in part.frozen().values()
    }
    names = {name for part in parts for name in part.adapter_names}
    start = initial_adapters(model.checkpoint, model.task, model.lora, 0)
    own = {name: value for name, value in start.items() if name in names}
    learner = Learner(own, OptimizerSettings(1e-3, 0.0, keep_moments=True))
    not_activations = {*frozen, *(p.data_ptr() for p in learner.parameters.values())}
    step = LocalStep(
        held.bottom, held.top, learner.parameters, batch, None, config.train.micro_batch
    )
    step._recompute = config.train.recompute
    live: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in not_activations:
            live[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        h1 = step.up()
        below = sum(live.values())
        live.clear()
        # The graphs of the top's micro-batches come one after the other: the largest counts.
        step._batches = step._batches[:1]
        step.learn(h1[: sum(step._batches[0].lengths)])
    logits = 0
    if config.model.task == "causal-lm":
        words = model.checkpoint.vocabulary
        labels = step._batches[0].labels
        counted = len(predicting(torch.zeros(*labels.shape, 1), labels)[1])
        logits = LOGITS * min(max(CHUNK // words, 1), counted) * words
    return {
        "frozen": sum(frozen.values()),
        "adapters": 4 * FLOAT32 * sum(value.numel() for value in own.values()),
        "activations": below + sum(live.values()) + 4 * h1.nbytes,
        "logits": logits,
    }


def _no_axes(hop: str) -> torch.Tensor:
    raise SystemExit(f"the exact wire has no axes for {hop}")

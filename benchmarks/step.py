"""Is the split pipeline as fast as plain PEFT of the unsplit model, and what do codecs cost in it?

One device trains through an edge server, identity codec, every message really serialised, on the
same texts, batches, precision and threads as plain `peft` + `transformers`. All arms take turns in
one process; a ratio is taken within each turn. The light wire comes twice: each text for the first
time, and again and again. Its codecs are timed where they work, inside of steps. Prints a table,
writes JSON.

    python benchmarks/step.py --out docs/results/step.json
"""

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from measured import machine, print_table, write_json
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoModelForTokenClassification

from elsa.config.load import load_config
from elsa.config.schema import Config
from elsa.config.words import Wire
from elsa.core.ragged import flat_index, pack, unpack
from elsa.core.split import Split
from elsa.core.temporal import Temporal
from elsa.core.waterfill import WaterFill
from elsa.data.batches import Batch, BatchStream, Examples
from elsa.engine.build import build_federation, open_sources
from elsa.engine.machine import prepare
from elsa.engine.parts import ModelParts, encode, load_model
from elsa.engine.simulate import Simulation
from elsa.model.segments import build_whole, initial_adapters
from elsa.roles.learner import Learner, OptimizerSettings

STEPS = 20
BATCH = 16
OPTIMIZER = OptimizerSettings(1e-3, 0.0, keep_moments=False)
Arm = Callable[[], int]
"""Takes STEPS training steps; returns the rows trained on."""


class Watch:
    """Seconds spent in the codecs of the light wire, at both ends of all hops."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for owner in (WaterFill, Temporal):
            for verb in ("encode", "decode"):
                setattr(owner, verb, self._timed(getattr(owner, verb)))

    def _timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            began = perf_counter()
            try:
                return work(*args, **options)
            finally:
                self.seconds += perf_counter() - began

        return call


def batches(
    examples: Examples, pad_id: int, *, bucketing: bool, size: int = BATCH
) -> Iterator[Batch]:
    """The same batches for every arm."""
    return BatchStream(examples, size, 0, bucketing, pad_id)


def plain_peft(model: ModelParts, stream: Iterator[Batch], attention: str, dtype: str) -> Arm:
    """`peft` as people write it: the whole model in float32, mean pooling, autocast for bf16."""
    whole = AutoModelForTokenClassification.from_pretrained(
        model.checkpoint.directory, num_labels=6, attn_implementation=attention
    )
    config = LoraConfig(
        task_type="TOKEN_CLS",
        r=model.lora.rank,
        lora_alpha=int(model.lora.alpha),
        target_modules=list(model.checkpoint.family.targets),
        lora_dropout=0.0,
    )
    tuned = get_peft_model(whole, config).eval()  # without dropout, as elsa trains
    optimizer = torch.optim.AdamW(
        [p for p in tuned.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0, fused=True
    )

    def train() -> int:
        rows = 0
        for batch in itertools.islice(stream, STEPS):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                logits = tuned(
                    input_ids=batch.input_ids,
                    attention_mask=batch.mask,
                    token_type_ids=batch.token_types,
                ).logits
            weights = batch.mask / batch.mask.sum(1, keepdim=True)
            pooled = (logits.float() * weights[:, :, None]).sum(1)
            torch.autograd.backward(functional.cross_entropy(pooled, batch.labels))
            optimizer.step()
            optimizer.zero_grad()
            rows += len(batch.lengths)
        return rows

    return train


def segments_alone(model: ModelParts, stream: Iterator[Batch], split: Split) -> Arm:
    """Bottom, trunk and top with tensors handed over: the split without roles or wire."""
    held, trunk = model.segments(split), model.trunk(split)
    top = held.top
    assert top is not None
    adapters = initial_adapters(model.checkpoint, model.task, model.lora, 0)
    learner = Learner(adapters, replace(OPTIMIZER, device=model.checkpoint.device))

    def train() -> int:
        rows = 0
        for batch in itertools.islice(stream, STEPS):
            shape = batch.input_ids.shape
            index = flat_index(batch.lengths, shape[1])
            for part in (held.bottom, trunk, top):
                part.bind(learner.parameters)
            h1 = pack(held.bottom(batch.input_ids, batch.mask, batch.token_types), index)
            x1 = h1.detach().requires_grad_()
            h2 = pack(trunk(unpack(x1, index, *shape), batch.mask), index)
            x2 = h2.detach().requires_grad_()
            logits = top(unpack(x2, index, *shape), batch.mask)
            torch.autograd.backward(top.loss(logits, batch.labels))
            torch.autograd.backward(h2, x2.grad)
            torch.autograd.backward(h1, x1.grad)
            learner.step()
            rows += len(batch.lengths)
        return rows

    return train


def unsplit(model: ModelParts, stream: Iterator[Batch]) -> Arm:
    """The whole model in elsa's own hands: its kernels and frozen weights, nothing cut."""
    whole = build_whole(model.checkpoint, model.task, model.lora)
    adapters = initial_adapters(model.checkpoint, model.task, model.lora, 0)
    learner = Learner(adapters, replace(OPTIMIZER, device=model.checkpoint.device))

    def train() -> int:
        rows = 0
        for batch in itertools.islice(stream, STEPS):
            whole.bind(learner.parameters)
            logits = whole(batch.input_ids, batch.mask, batch.token_types)
            torch.autograd.backward(whole.loss(logits, batch.labels))
            learner.step()
            rows += len(batch.lengths)
        return rows

    return train


def pipeline(config: Config, sources: Any) -> Arm:
    """The whole thing: device, edge and cloud, messages as bytes."""
    simulation = Simulation(build_federation(config, sources))
    return lambda: sum(report.samples for report in simulation.train_round())


def one_device(size: int, precision: str, wire: str, *more: str) -> Config:
    """One device at one edge, batches of so many rows."""
    return load_config(
        None,
        [
            "federation.devices=1",
            "federation.edges=1",
            "federation.edge_rounds=1",
            f"federation.local_steps={STEPS}",
            "partition.kind=iid",
            "data.holdout_fraction=0.0",
            f"train.batch_size={size}",
            f"model.precision={precision}",
            f"wire.preset={wire}",
            *more,
        ],
    )


def measure(precision: str, turns: int, threads: int, watch: Watch) -> list[dict[str, Any]]:
    """All arms of one precision in turns; rows of the table."""
    config = one_device(BATCH, precision, "exact", f"run.threads={threads}", "run.accelerator=cpu")
    prepare(threads)
    sources = open_sources(config)
    examples = encode(sources.text.train, sources.tokenizer, config)
    model = load_model(config, 6, sources.model.checkpoint.directory)
    split = Split.of(model.checkpoint.blocks, config.split.bottom, config.split.top)
    pad = sources.tokenizer.pad_id
    random = config.model_copy(
        update={"train": config.train.model_copy(update={"bucketing": False})}
    )

    balanced = config.model_copy(update={"wire": Wire(preset="balanced")})
    few = config.data.model_copy(update={"limit": STEPS * BATCH})
    again = open_sources(config.model_copy(update={"data": few}))

    def stream(bucketing: bool = True) -> Iterator[Batch]:
        return batches(examples, pad, bucketing=bucketing)

    arms: dict[str, Arm] = {
        "plain PEFT": plain_peft(model, stream(), "sdpa", precision),
        "plain PEFT, eager attention": plain_peft(model, stream(), "eager", precision),
        "plain PEFT, random batches": plain_peft(model, stream(False), "sdpa", precision),
        "elsa, unsplit": unsplit(model, stream()),
        "elsa, segments alone": segments_alone(model, stream(), split),
        "elsa": pipeline(config, sources),
        "elsa, random batches": pipeline(
            random, replace(sources, tasks=(replace(sources.tasks[0], model=model),))
        ),
        "elsa, balanced wire": pipeline(balanced, sources),
        "elsa, balanced wire, texts again": pipeline(balanced, again),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    shares: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(turns + 1):
        for name, arm in arms.items():
            watch.seconds, began = 0.0, perf_counter()
            rows = arm()
            seconds = perf_counter() - began
            if turn:
                rates[name].append(rows / seconds)
                shares[name].append(watch.seconds / seconds)
    return [
        {
            "precision": precision,
            "arm": name,
            "samples_per_second": statistics.median(rate),
            "ratio_to_plain": statistics.median(ratios := ratio(rate, rates["plain PEFT"])),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "codec_share": statistics.median(shares[name]),
        }
        for name, rate in rates.items()
    ]


def ratio(rates: list[float], baseline: list[float]) -> list[float]:
    """Turn by turn."""
    return [one / other for one, other in zip(rates, baseline, strict=True)]


def main() -> None:
    """Measure both precisions, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    threads, watch = prepare(options.threads), Watch()
    rows = [
        row
        for precision in ("float32", "bfloat16")
        for row in measure(precision, options.turns, threads, watch)
    ]
    print_table(rows)
    if options.out:
        write_json(options.out, {"machine": machine(), "threads": threads, "rows": rows})


if __name__ == "__main__":
    main()

"""How fast is a local step on this machine's GPU, beside plain PEFT of the unsplit model on it?

One device trains through an edge server in this process, every message really serialised, on the
same texts, batches and precision as plain `peft` + `transformers`, both on the GPU (CUDA or MPS).
Arms take turns; a ratio is taken within each turn. MiniLM on TREC. Without a GPU it says so, and
ends with status 1. Prints its table last, writes JSON.

    python benchmarks/gpu.py --out docs/results/gpu.json
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from measured import commit, machine, print_table, write_json
from peft import LoraConfig, get_peft_model
from step import STEPS, batches, one_device, pipeline, segments_alone, unsplit
from torch.nn import functional
from transformers import AutoModelForTokenClassification

from elsa.core.split import Split
from elsa.data.batches import Batch
from elsa.engine.build import open_sources
from elsa.engine.machine import prepare
from elsa.engine.parts import ModelParts, encode
from elsa.model.accelerator import chosen, described, wait

SIZES = (16, 128)
Arm = Callable[[], int]
"""Takes STEPS training steps; returns the rows trained on."""


def plain_peft(model: ModelParts, stream: Iterator[Batch]) -> Arm:
    """`peft` as people write it: the whole model on the GPU, autocast for bfloat16."""
    checkpoint, place = model.checkpoint, model.checkpoint.device
    whole = AutoModelForTokenClassification.from_pretrained(
        checkpoint.directory, num_labels=6, attn_implementation="sdpa"
    )
    config = LoraConfig(
        task_type="TOKEN_CLS",
        r=model.lora.rank,
        lora_alpha=int(model.lora.alpha),
        target_modules=list(checkpoint.family.targets),
        lora_dropout=0.0,
    )
    tuned = get_peft_model(whole, config).eval().to(place)  # without dropout, as elsa trains
    learning = [it for it in tuned.parameters() if it.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-3, weight_decay=0.0, fused=True)
    low = checkpoint.dtype == torch.bfloat16

    def train() -> int:
        rows = 0
        for batch in itertools.islice(stream, STEPS):
            types = None if batch.token_types is None else batch.token_types.to(place)
            ids, mask, labels = (it.to(place) for it in (batch.input_ids, batch.mask, batch.labels))
            with torch.autocast(place.type, torch.bfloat16, enabled=low):
                logits = tuned(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
            weights = mask / mask.sum(1, keepdim=True)
            pooled = (logits.float() * weights[:, :, None]).sum(1)
            torch.autograd.backward(functional.cross_entropy(pooled, labels))
            optimizer.step()
            optimizer.zero_grad()
            rows += len(batch.lengths)
        return rows

    return train


def measure(size: int, precision: str, turns: int) -> list[dict[str, Any]]:
    """All arms of a batch size and a precision in turns; rows of the table."""
    config = one_device(size, precision, "exact")
    sources = open_sources(config)
    model, pad = sources.model, sources.tokenizer.pad_id
    examples = encode(sources.text.train, sources.tokenizer, config)
    split = Split.of(model.checkpoint.blocks, config.split.bottom, config.split.top)

    def stream() -> Iterator[Batch]:
        return batches(examples, pad, bucketing=True, size=size)

    arms: dict[str, Arm] = {
        "plain PEFT": plain_peft(model, stream()),
        "elsa, unsplit": unsplit(model, stream()),
        "elsa, segments alone": segments_alone(model, stream(), split),
        "elsa": pipeline(config, sources),
        "elsa, balanced wire": pipeline(one_device(size, precision, "balanced"), sources),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(turns + 1):
        for name, arm in arms.items():
            began = perf_counter()
            rows = arm()
            wait(model.checkpoint.device)
            if turn:  # the first one also compiles and warms up
                rates[name].append(rows / (perf_counter() - began))
    plain = rates["plain PEFT"]
    return [
        {
            "rows a batch": size,
            "precision": precision,
            "arm": name,
            "samples a second": statistics.median(rate),
            "ms a step": size / statistics.median(rate) * 1e3,
            "to plain PEFT": statistics.median(
                one / other for one, other in zip(rate, plain, strict=True)
            ),
        }
        for name, rate in rates.items()
    ]


def main() -> None:
    """Measure, write and print; or say that there is nothing to measure on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    prepare(0)
    place = chosen("auto")
    if place.type == "cpu":
        sys.exit(
            f"No GPU that PyTorch {torch.__version__} can use: nothing was measured. "
            "benchmarks/step.py measures the same on processors."
        )
    rows = [
        row
        for size in SIZES
        for precision in ("float32", "bfloat16")
        for row in measure(size, precision, options.turns)
    ]
    if options.out:
        found = {"machine": machine(), "commit": commit(), "gpu": described(place), "rows": rows}
        write_json(options.out, found)
    print_table(rows)


if __name__ == "__main__":
    main()

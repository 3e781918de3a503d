"""What does running blocks again save, and cost, beside micro-batches?

A local step of a device's own segments of SmolLM2 in bfloat16, answers of half of each text
counted: tensors that are alive at once at its peak, without what stays from step to step, and
processor time, the smaller of two turns; with all rows at once, with one row at a time, with blocks
that run again, and with both. Prints a table, writes JSON.

    python benchmarks/recompute.py --out docs/results/recompute.json
"""

import argparse
from functools import partial
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from measured import machine, print_table, write_json

from elsa.config.load import load_config
from elsa.core.split import Split
from elsa.data.batches import Batch, Examples, make_batch
from elsa.engine.machine import prepare
from elsa.engine.parts import ModelParts, load_model, model_directory
from elsa.model.segments import initial_adapters
from elsa.model.sizes import peak_bytes
from elsa.roles.learner import Learner, OptimizerSettings
from elsa.roles.local import LocalStep

CUTS = ((1, 1), (4, 4))
BATCHES = ((8, 64), (1, 512))
"""Rows and tokens of each."""


def batch_of(rows: int, width: int, words: int) -> Batch:
    """Random tokens; the second half of each text counts."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(3, words, width).astype(np.int32) for _ in range(rows)]
    counted = [np.arange(width) >= width // 2 for _ in range(rows)]
    return make_batch(Examples(ids, counted=counted), range(rows), 0)


def step(model: ModelParts, split: Split, learner: Learner, batch: Batch, **how: Any) -> None:
    """A local step but for the trunk and the optimizer."""
    segments = model.segments(split)
    local = LocalStep(segments.bottom, segments.top, learner.parameters, batch, None, **how)
    h1 = local.up()
    local.down(torch.zeros_like(local.learn(h1)[1]))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    prepare(1)
    config = load_config("smollm2", ["model.precision=bfloat16", "model.max_tokens=512"])
    model = load_model(config, 0, model_directory(config.model.path, lambda _: None))
    start = initial_adapters(model.checkpoint, model.task, model.lora, 0)
    rows: list[dict[str, Any]] = []
    for cuts, (count, width) in product(CUTS, BATCHES):
        split = Split.of(model.checkpoint.blocks, *cuts)
        segments = model.segments(split)
        parts = [part for part in (segments.bottom, segments.top) if part is not None]
        names = {name for part in parts for name in part.adapter_names}
        learner = Learner({name: start[name] for name in names}, OptimizerSettings(1e-3, 0, True))
        batch = batch_of(count, width, model.checkpoint.vocabulary)
        held = [tensor for part in parts for tensor in part.frozen().values()]
        for micro_batch, recompute in product((0, 1) if count > 1 else (0,), (False, True)):
            work = partial(step, model, split, learner, batch, micro_batch=micro_batch)
            work = partial(work, recompute=recompute)
            peak = peak_bytes(work, [*held, *learner.parameters.values()])
            seconds = []
            for _ in range(2):
                began = process_time()
                work()
                seconds.append(process_time() - began)
            rows.append(
                {
                    "p, q": f"{cuts[0]}, {cuts[1]}",
                    "rows x tokens": f"{count} x {width}",
                    "rows at once": micro_batch or count,
                    "recompute": recompute,
                    "step_mb": peak / 1e6,
                    "seconds": min(seconds),
                }
            )
        print_table(rows)
    if options.out:
        write_json(options.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()

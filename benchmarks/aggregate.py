"""What does each rule cost at an edge: time to aggregate, and bytes of updates held meanwhile?

Random updates in the shapes of MiniLM's adapters (rank 8) and head, of 5 and 20 devices. Time
is CPU time of adding all updates and taking the result, one thread, best of several turns; held is
what the rule keeps of them until then, counted from its tensors. Prints a table, writes JSON.

    python benchmarks/aggregate.py --out docs/results/aggregate.json
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import torch
from measured import machine, print_table, write_json
from torch import Tensor

from elsa.config.load import load_config
from elsa.core.aggregate import NewMean, WeightedMean
from elsa.core.product import ProductMean
from elsa.core.robust import Gathered, coordinate_median, krum, multi_krum, trimmed_mean
from elsa.engine.build import open_sources
from elsa.engine.machine import prepare
from elsa.model.segments import adapter_shapes

COUNTS, TURNS = (5, 20), 2
RULES: dict[str, NewMean] = {
    "mean": WeightedMean,
    "median": partial(Gathered, coordinate_median),
    "trimmed-mean": partial(Gathered, partial(trimmed_mean, trim=0.2)),
    "krum": partial(Gathered, partial(krum, byzantine=1)),
    "multi-krum": partial(Gathered, partial(multi_krum, byzantine=1)),
    "product": ProductMean,
}


def held_bytes(thing: object, seen: set[int]) -> int:
    """Bytes of all tensors that an object keeps, each once."""
    if isinstance(thing, Tensor):
        fresh = thing.data_ptr() not in seen
        seen.add(thing.data_ptr())
        return thing.nbytes if fresh else 0
    if isinstance(thing, Mapping):
        return sum(held_bytes(each, seen) for each in thing.values())
    if isinstance(thing, list | tuple):
        return sum(held_bytes(each, seen) for each in thing)
    return held_bytes(vars(thing), seen) if isinstance(thing, WeightedMean) else 0


def measure(rule: NewMean, updates: list[dict[str, Tensor]]) -> dict[str, float]:
    """Best CPU seconds of some turns, and bytes held once all updates are in."""
    best, held = float("inf"), 0
    for _ in range(TURNS):
        began, mean = process_time(), rule()
        for number, update in enumerate(updates):
            mean.add(update, 1.0 + number, str(number))
        held = held_bytes(vars(mean), set())
        mean.result(updates[0])
        best = min(best, process_time() - began)
    return {"cpu_seconds": best, "held_bytes": held}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results/aggregate.json"))
    out = parser.parse_args().out
    prepare(1)
    model = open_sources(load_config(), print).model
    shapes = adapter_shapes(model.checkpoint, model.task, model.lora)
    generator = torch.Generator().manual_seed(0)
    updates = [
        {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        for _ in range(max(COUNTS))
    ]
    size = sum(value.nbytes for value in updates[0].values())
    rows: list[dict[str, Any]] = [
        {"rule": name, "devices": count} | measure(rule, updates[:count])
        for count in COUNTS
        for name, rule in RULES.items()
    ]
    print(f"one update: {size} bytes")
    print_table(rows)
    write_json(out, {"machine": machine(), "update_bytes": size, "rows": rows})


if __name__ == "__main__":
    main()

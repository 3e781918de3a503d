"""One device in five is five times slower: how soon is a test accuracy reached, by what edges do?

MiniLM on TREC as in the quick start, with 10 devices at 2 edges, in the simulated time of the
virtual clock. Every arm takes as many steps a device in an edge round; one that waits for fewer
devices plays more rounds, as its rounds are shorter. All arms of a seed have the same rows and the
same slow devices. The target of a seed is 95 % of the best accuracy that its synchronous run
measured. A cell is one arm with one seed; those that the file has already are not run again.

    python benchmarks/stragglers.py --seeds 0 1 2 --out docs/results/stragglers.json
"""

import argparse
import csv
import json
import statistics
import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from measured import commit, machine, print_table, write_json

from elsa.config.load import load_config
from elsa.engine.run import run

SETTINGS = (
    "run.threads=1",
    "model.max_tokens=24",
    "data.limit=1600",
    "federation.devices=10",
    "federation.edges=2",
    "federation.local_steps=3",
    "train.batch_size=8",
    "partition.min_rows=8",
    "evaluate.every=1",
    "network.slow=0.2",
    "network.slow_factor=5",
)
BASE = "synchronous"
ARMS: Mapping[str, tuple[str, ...]] = {
    BASE: ("federation.rounds=5",),
    "buffered": (
        "federation.rounds=8",
        "aggregate.late=buffer",
        "deploy.device_quorum=0.6",
    ),
    "quorum and deadline": (
        "federation.rounds=7",
        "deploy.device_quorum=0.6",
        "deploy.straggler_seconds=0.5",
    ),
    "over-selection": (
        "federation.rounds=7",
        "federation.participation=0.8",
        "deploy.device_quorum=0.75",
        "deploy.straggler_seconds=0",
    ),
}
PART = 0.95
"""Of the best accuracy of the synchronous run: the target."""

Cell = Mapping[str, Any]
Cells = dict[tuple[str, int], Cell]


def cell(arm: str, seed: int) -> Cell:
    """An arm; its curve has simulated seconds, accuracy and samples so far after each round."""
    settings = [*SETTINGS, *ARMS[arm]]
    with tempfile.TemporaryDirectory() as folder:
        result = run(load_config(None, [*settings, f"run.seed={seed}"]), out=Path(folder) / "run")
        with (result.directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    seconds, samples, curve = 0.0, 0, []
    for row in rows:
        seconds += float(row["simulated_seconds"])
        samples += int(row["samples"])
        curve.append([round(seconds, 3), float(row["accuracy"]), samples])
    return {"arm": arm, "seed": seed, "settings": settings, "commit": commit(), "curve": curve}


def reached(curve: list[list[float]], target: float) -> list[float] | None:
    """The first point of a curve that is at a target; None if there is none."""
    return next((point for point in curve if point[1] >= target), None)


def row_of(arm: str, cells: Cells) -> dict[str, Any]:
    """Means over the seeds that were run; smallest and largest in brackets."""
    runs = {seed: it for (name, seed), it in cells.items() if name == arm and (BASE, seed) in cells}
    curves = {seed: it["curve"] for seed, it in runs.items()}
    waited = {seed: cells[BASE, seed]["curve"] for seed in curves}
    targets = {seed: PART * max(it[1] for it in waited[seed]) for seed in curves}
    there = {seed: reached(curves[seed], targets[seed]) for seed in curves}
    found = {seed: point for seed, point in there.items() if point is not None}
    base = {seed: point[0] for seed in curves if (point := reached(waited[seed], targets[seed]))}
    return {
        "arm": arm,
        "seeds": len(curves),
        "reached by": len(found),
        "simulated s to target": _mean([it[0] for it in found.values()]),
        "samples to target": _mean([it[2] for it in found.values()]),
        "times sooner": _mean([base[seed] / it[0] for seed, it in found.items()]),
        "last accuracy": _mean([it[-1][1] for it in curves.values()]),
        "simulated s in all": _mean([it[-1][0] for it in curves.values()]),
    }


def _mean(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.mean(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def main() -> None:
    """Run the cells that are missing, write each as it is done, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    kept = json.loads(options.out.read_text("utf-8"))["cells"] if options.out.is_file() else []
    cells: Cells = {
        (it["arm"], it["seed"]): it
        for it in kept
        if it["arm"] in ARMS and it["settings"] == [*SETTINGS, *ARMS[it["arm"]]]
    }
    wanted = list(product(ARMS, options.seeds))
    for number, (arm, seed) in enumerate(wanted):
        if (arm, seed) not in cells:
            print(f"{number} of {len(wanted)}: {arm}, seed {seed}", flush=True)
            cells[arm, seed] = cell(arm, seed)
        rows = [row_of(it, cells) for it in ARMS]
        content = {"machine": machine(), "rows": rows, "cells": list(cells.values())}
        write_json(options.out, content)
    print_table([row_of(arm, cells) for arm in ARMS])


if __name__ == "__main__":
    main()

"""One device in five is five times slower: how soon is a test accuracy reached, by what edges do?

MiniLM on TREC as in the quick start, with 10 devices at 2 edges, in the simulated time of the
virtual clock. Every arm takes as many steps a device in an edge round; an arm that waits for fewer
devices may play more rounds, as its rounds are shorter. A cell is one arm with one seed; those that
are there already are not run again. All arms of a seed have the same rows and slow devices.

    python benchmarks/stragglers.py --seeds 0 1 2 --out docs/results/stragglers
"""

import argparse
import csv
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measured import commit, machine, print_table, write_json

from elsa.config.load import load_config
from elsa.engine.run import run
from elsa.record.atomic import write_atomically

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
ARMS: Mapping[str, tuple[str, ...]] = {
    "synchronous": ("federation.rounds=6",),
    "quorum and deadline": (
        "federation.rounds=8",
        "deploy.device_quorum=0.6",
        "deploy.straggler_seconds=1",
    ),
    "over-selection": (
        "federation.rounds=10",
        "federation.participation=0.8",
        "deploy.device_quorum=0.75",
        "deploy.straggler_seconds=0",
    ),
    "buffered": (
        "federation.rounds=10",
        "aggregate.late=buffer",
        "deploy.device_quorum=0.6",
    ),
}
TARGETS = (0.5, 0.6, 0.7)
BASE = "synchronous"


def cell(arm: str, seed: int) -> dict[str, Any]:
    """Simulated seconds and accuracy after each round of an arm."""
    config = load_config(None, [*SETTINGS, *ARMS[arm], f"run.seed={seed}"])
    with tempfile.TemporaryDirectory() as folder:
        result = run(config, out=Path(folder) / "run")
        with (result.directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    seconds, curve = 0.0, []
    for row in rows:
        seconds += float(row["simulated_seconds"])
        curve.append((seconds, float(row["accuracy"]), int(row["samples"])))
    return {
        "arm": arm,
        "seed": seed,
        "settings": [*SETTINGS, *ARMS[arm]],
        "commit": commit(),
        "curve": curve,
        "wall_seconds": result.summary["wall_seconds"],
    }


def reached(curve: list[list[float]], target: float) -> float | None:
    """Simulated seconds until a test accuracy was measured; None if it was not."""
    return next((seconds for seconds, accuracy, _ in curve if accuracy >= target), None)


def rows_of(cells: Mapping[tuple[str, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """A row an arm: simulated seconds to each target, and how many times sooner than waiting."""
    rows = []
    for arm in ARMS:
        seeds = [seed for name, seed in cells if name == arm]
        row: dict[str, Any] = {"arm": arm, "seeds": len(seeds)}
        for target in TARGETS:
            own = {seed: reached(cells[arm, seed]["curve"], target) for seed in seeds}
            found = [it for it in own.values() if it is not None]
            complete = found and len(found) == len(seeds)
            row[f"s to {target}"] = statistics.mean(found) if complete else None
            ratios = [
                waited / it
                for seed, it in own.items()
                if it is not None
                and (BASE, seed) in cells
                and (waited := reached(cells[BASE, seed]["curve"], target)) is not None
            ]
            row[f"sooner at {target}"] = (
                f"{statistics.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                if ratios and len(ratios) == len(seeds)
                else None
            )
        last = [cells[arm, seed]["curve"][-1] for seed in seeds]
        row["last accuracy"] = statistics.mean(it[1] for it in last) if last else None
        row["s in all"] = statistics.mean(it[0] for it in last) if last else None
        rows.append(row)
    return rows


def main() -> None:
    """Run the cells that are missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    cells: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in options.seeds:
        for arm in ARMS:
            path = options.out / "cells" / arm.replace(" ", "-") / f"{seed}.json"
            if path.is_file():
                kept = json.loads(path.read_text(encoding="utf-8"))
                if kept["settings"] == [*SETTINGS, *ARMS[arm]]:
                    cells[arm, seed] = kept
                    continue
            print(f"{arm}, seed {seed}", flush=True)
            cells[arm, seed] = cell(arm, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(cells[arm, seed], indent=1).encode() + b"\n")
            rows = rows_of(cells)
            write_json(options.out / "stragglers.json", {"machine": machine(), "rows": rows})
    print_table(rows_of(cells))


if __name__ == "__main__":
    main()

"""Splits fitted to each device, against the best single split that all devices can hold.

MiniLM on TREC, devices of three memory sizes, in the simulated time of the virtual clock. First the
plan: seconds of a global round by the edges' speed, for every split that fits all devices and for
the fitted ones. Then, at one speed, both are trained, and the time to a test accuracy is taken from
the rounds' simulated seconds. float32, so both train the same adapters and differ in time alone.

    python benchmarks/splits.py --seeds 0 1 2 --out docs/results/splits.json
"""

import argparse
import csv
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measured import machine, print_table, write_json

from elsa.config.load import load_config
from elsa.config.schema import Config
from elsa.core.split import Split
from elsa.engine.build import build_federation, open_sources
from elsa.engine.machine import prepare
from elsa.engine.plan import Plan, plan_of
from elsa.engine.planner import Planner
from elsa.engine.run import run

SETTINGS = (
    "run.threads=1",
    "model.precision=float32",
    "data.limit=2000",
    "federation.devices=6",
    "federation.edges=2",
    "federation.rounds=8",
    "federation.local_steps=4",
    "network.device_memory_mb=[98, 135, 180]",
    "evaluate.every=1",
)
EDGES = (5, 10, 20, 50, 100, 1000)
"""10^9 operations a second of an edge in the plans."""
TRAINED = 10
TARGETS = (0.7, 0.75, 0.8)


def config_of(seed: int, gflops: float, split: Split | None) -> Config:
    """The study's config: fitted, or with one split for all."""
    chosen = (
        ["split.mode=fitted"]
        if split is None
        else [f"split.bottom={split.bottom}", f"split.top={split.top}"]
    )
    own = [f"run.seed={seed}", f"network.edge_gflops={gflops}", *chosen]
    return load_config(None, [*SETTINGS, *own])


def planned(seed: int) -> dict[float, tuple[Plan, dict[Split, Plan]]]:
    """By the edges' speed, the fitted plan and that of every split that all devices can hold."""
    sources = open_sources(config_of(seed, TRAINED, None))
    blocks = sources.model.checkpoint.blocks
    splits = [Split.of(blocks, *cuts) for cuts in ((1, 0), (2, 0), (1, 1), (3, 0), (2, 1), (1, 2))]
    found: dict[float, tuple[Plan, dict[Split, Plan]]] = {}
    for gflops in EDGES:
        config = config_of(seed, gflops, None)
        federation = build_federation(config, sources)
        fitted = plan_of(federation, Planner(federation, sources, config))
        uniform = {}
        for split in splits:
            fixed = config_of(seed, gflops, split)
            planner = Planner(federation, sources, fixed)
            if not planner.lacks():
                uniform[split] = plan_of(federation, planner)
        found[gflops] = fitted, uniform
    return found


def best_of(uniform: dict[Split, Plan]) -> Split:
    """The split whose round is shortest."""
    return min(uniform, key=lambda split: uniform[split].seconds)


def trained(config: Config) -> dict[str, Any]:
    """Simulated seconds and accuracy after each round, and when each target is reached."""
    with tempfile.TemporaryDirectory() as folder:
        result = run(config, out=Path(folder) / "run")
        with (result.directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    seconds, curve = 0.0, []
    for row in rows:
        seconds += float(row["simulated_seconds"])
        curve.append((seconds, float(row["accuracy"])))
    reached = {
        str(target): next((at for at, accuracy in curve if accuracy >= target), None)
        for target in TARGETS
    }
    return {"curve": curve, "seconds_to": reached}


def named(split: Split) -> str:
    return f"{split.bottom}/{split.trunk}/{split.top}"


def plan_rows(
    seed: int, plans: dict[float, tuple[Plan, dict[Split, Plan]]]
) -> list[dict[str, Any]]:
    """A row a speed of the edges."""
    rows = []
    for gflops, (fitted, uniform) in plans.items():
        best = best_of(uniform)
        rows.append(
            {
                "edge_gflops": gflops,
                "seed": seed,
                "best uniform": named(best),
                "uniform_seconds": uniform[best].seconds,
                "fitted_seconds": fitted.seconds,
                "ratio": fitted.seconds / uniform[best].seconds,
                "splits": {it.device: f"{it.bottom}/{it.trunk}/{it.top}" for it in fitted.devices},
            }
        )
    return rows


def main() -> None:
    """Plan, train, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    prepare(1)
    plans: list[dict[str, Any]] = []
    kept = done(options.out)
    for seed in options.seeds:
        made = planned(seed)
        plans += plan_rows(seed, made)
        print_table([{k: v for k, v in row.items() if k != "splits"} for row in plans])
        for arm, split in (("fitted", None), ("uniform", best_of(made[TRAINED][1]))):
            key = f"{seed} {arm} {named(split) if split else 'each its own'}"
            kept[key] = kept.get(key) or trained(config_of(seed, TRAINED, split))
            print(key, kept[key]["seconds_to"], flush=True)
            if options.out:
                write(options.out, plans, kept)
    print(compared(kept))


def done(out: Path | None) -> dict[str, dict[str, Any]]:
    """The cells that are there from an earlier call with the same settings."""
    if out is None or not out.is_file():
        return {}
    content = json.loads(out.read_text(encoding="utf-8"))
    if (tuple(content["settings"]), content["trained_at_edge_gflops"]) != (SETTINGS, TRAINED):
        return {}
    return {cell.pop("cell"): cell for cell in content["cells"]}


def compared(cells: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Simulated time of the fitted splits to that of the best uniform one, by target."""
    seconds = {tuple(key.split()[:2]): cell["seconds_to"] for key, cell in cells.items()}
    ratios: dict[str, list[float]] = {str(target): [] for target in TARGETS}
    for (seed, arm), own in seconds.items():
        other = seconds.get((seed, "uniform"))
        for target, found in ratios.items():
            if arm == "fitted" and other and own[target] and other[target]:
                found.append(own[target] / other[target])
    return {
        target: {"mean": statistics.mean(it), "least": min(it), "most": max(it), "seeds": len(it)}
        for target, it in ratios.items()
        if it
    }


def write(out: Path, plans: list[dict[str, Any]], cells: Mapping[str, dict[str, Any]]) -> None:
    """Write what is there so far."""
    content = {"settings": SETTINGS, "trained_at_edge_gflops": TRAINED, "plans": plans}
    content |= {"cells": [{"cell": key, **cell} for key, cell in cells.items()]}
    content |= {"fitted_to_uniform": compared(cells)}
    write_json(out, {"machine": machine(), **content})


if __name__ == "__main__":
    main()

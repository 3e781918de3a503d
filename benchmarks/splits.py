"""Splits fitted to each device, against the best single split that all devices can hold.

MiniLM on TREC, devices of three memory sizes, in the simulated time of the virtual clock. First the
plan: seconds of a global round by the edges' speed, for every split that fits all devices and for
the fitted ones. Then, at one speed, the federation is trained, and the time to a test accuracy is
taken from the rounds' simulated seconds. In float32 all splits train the same adapters to the bit
(`tests/equivalence/test_mixed_splits.py`) and differ in time alone, so one training gives the
accuracy of both arms; the clock is run again for the uniform split on the lengths of the same
batches, and for the fitted ones too, as a check: it must give the seconds of the training.

    python benchmarks/splits.py --seeds 0 1 2 --out docs/results/splits.json
"""

import argparse
import csv
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from measured import machine, print_table, write_json

from elsa.config.load import load_config
from elsa.config.schema import Config
from elsa.core.split import Split
from elsa.engine.build import Sources, build_federation, open_sources
from elsa.engine.clock import cloud_seconds
from elsa.engine.machine import prepare
from elsa.engine.plan import Plan, plan_of
from elsa.engine.planner import Planner
from elsa.engine.run import run
from elsa.engine.schedule import finish_times

SETTINGS = (
    "run.threads=1",
    "model.precision=float32",
    "wire.preset=exact",
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


def clocked(config: Config, sources: Sources) -> list[float]:
    """Simulated seconds of each round with the splits of a config; nothing is trained."""
    federation = build_federation(config, sources)
    planner = Planner(federation, sources, config)
    rounds, steps = config.federation, config.federation.local_steps
    lasting = [0.0] * rounds.rounds
    for names in federation.cloud.assignment.values():
        chosen = planner.choose(names)
        up, down = planner.prices[names[0]].cloud_orders()
        demands = {name: all_batches(federation.devices[name], config) for name in names}
        for number in range(rounds.rounds):
            seconds = cloud_seconds(config.network, up, down)
            for edge_round in range(rounds.edge_rounds):
                first = (number * rounds.edge_rounds + edge_round) * steps
                legs = [
                    planner.prices[name].legs(
                        replace(planner.demands[name], batches=demands[name]),
                        federation.speed_of(name),
                        chosen[name].split,
                        steps=range(first, first + steps),
                    )
                    for name in names
                ]
                seconds += max(finish_times(legs))
            lasting[number] = max(lasting[number], seconds)
    return lasting


def all_batches(device: Any, config: Config) -> list[tuple[int, ...]]:
    """Tokens of each text of every batch that a device trains on."""
    rounds, stream = config.federation, device.stream()
    steps = rounds.rounds * rounds.edge_rounds * rounds.local_steps
    epochs = -(-steps // stream.batches_per_epoch)
    return [each for epoch in range(epochs) for each in stream.epoch_lengths(epoch)][:steps]


def timed(curve: Sequence[Sequence[float]], seconds: Sequence[float]) -> dict[str, Any]:
    """The accuracies of a curve by another clock, and when each target is reached."""
    by_time = [(at, accuracy) for at, (_, accuracy) in zip(accumulate(seconds), curve, strict=True)]
    return {"curve": by_time, "seconds_to": reached(by_time)}


def reached(curve: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """Seconds to each target, None where it is not reached."""
    return {
        str(target): next((at for at, accuracy in curve if accuracy >= target), None)
        for target in TARGETS
    }


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
    return {"curve": curve, "seconds_to": reached(curve)}


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
        fitted, best = config_of(seed, TRAINED, None), best_of(made[TRAINED][1])
        sources = open_sources(fitted)
        key = f"{seed} fitted each its own"
        own = kept[key] = kept.get(key) or trained(fitted)
        again = timed(own["curve"], clocked(fitted, sources))
        own["clock_again"] = again["curve"][-1][0] / own["curve"][-1][0]
        seconds = clocked(config_of(seed, TRAINED, best), sources)
        kept[f"{seed} uniform {named(best)}"] = timed(own["curve"], seconds)
        print(seed, own["clock_again"], compared(kept), flush=True)
        if options.out:
            write(options.out, plans, kept)
            draw(options.out.with_suffix(".svg"), kept)
    print(compared(kept))


def draw(path: Path, cells: Mapping[str, dict[str, Any]]) -> None:
    """Accuracy against simulated seconds; a colour a seed, fitted splits in full lines."""
    colours = ("#0060a0", "#c44a00", "#007a5a")
    with mpl.rc_context({"svg.hashsalt": "elsa", "font.size": 9}):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for key, cell in cells.items():
            seed, arm, split = key.split(maxsplit=2)
            axes.plot(
                *zip(*cell["curve"], strict=True),
                color=colours[int(seed) % len(colours)],
                ls="-" if arm == "fitted" else "--",
                marker="o",
                ms=3,
                lw=1.2,
                label=f"seed {seed}, {'fitted' if arm == 'fitted' else f'all {split}'}",
            )
        axes.set_xlim(left=0)
        axes.set_xlabel(f"simulated seconds, edges of {TRAINED} GFLOPS")
        axes.set_ylabel("test accuracy")
        axes.set_title("Fitted splits and the best single split, TREC", loc="left", fontsize=10)
        axes.grid(visible=True, color="#eeeeee", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Date": None}, facecolor="white")


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

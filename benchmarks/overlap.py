"""What do micro-batches in flight gain in simulated time, and what do they cost in computing?

1. Simulated seconds of a local step, as `elsa plan` reckons them with the schedule of the virtual
   clock: MiniLM on TREC, the quick start's devices and edges, over three links, with the exact wire
   and the default one, whose packets are reckoned as for noise; 1, 2 and 4 micro-batches.
2. Processor seconds of a step of a whole federation in this process, one thread, in turns: what
   smaller batches cost, which the clock does not see, as it counts operations.
3. The simulated seconds of the same rounds, from the bytes that were really serialised.

Prints tables, writes JSON.

    python benchmarks/overlap.py --out docs/results/overlap.json
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from time import process_time
from typing import Any

from measured import commit, machine, print_table, write_json

from elsa.config.load import load_config
from elsa.config.schema import Config
from elsa.engine.build import build_federation, open_sources
from elsa.engine.machine import prepare
from elsa.engine.plan import plan_of
from elsa.engine.planner import Planner
from elsa.engine.simulate import Simulation

COUNTS = (1, 2, 4)
WIRES = ("exact", "balanced")
LINKS: Mapping[str, tuple[float, float, float]] = {
    "quick start": (10.0, 20.0, 50.0),
    "narrow": (10.0, 2.0, 5.0),
    "far": (100.0, 20.0, 50.0),
    "beside the edge": (0.2, 1000.0, 1000.0),
}
"""Milliseconds one way, 10^6 bits a second up and down."""
SETTINGS = ("run.threads=1", "federation.rounds=1", "federation.edge_rounds=1")
PLANNED = (*SETTINGS, "federation.local_steps=20")
TRAINED = (*SETTINGS, "federation.devices=2", "federation.local_steps=4", "data.limit=800")


def config_of(settings: tuple[str, ...], wire: str, count: int, link: str) -> Config:
    """The quick start's, so many micro-batches in flight."""
    latency, up, down = LINKS[link]
    own = (
        f"wire.preset={wire}",
        f"train.in_flight={count}",
        f"network.device_edge.latency_ms={latency}",
        f"network.device_edge.up_mbps={up}",
        f"network.device_edge.down_mbps={down}",
    )
    return load_config(None, [*settings, *own])


def planned() -> list[dict[str, Any]]:
    """Simulated milliseconds of a mean local step, others at the edge included."""
    rows = []
    sources = open_sources(config_of(SETTINGS, "exact", 1, "quick start"))
    for link in LINKS:
        for wire in WIRES:
            row: dict[str, Any] = {"link": link, "wire": wire}
            for count in COUNTS:
                config, exact = (config_of(PLANNED, it, count, link) for it in (wire, "exact"))
                federation = build_federation(exact, sources)  # other codecs read public text
                devices = plan_of(federation, Planner(federation, sources, config)).devices
                seconds = statistics.mean(it.round_seconds for it in devices)
                row[f"ms, {count} in flight"] = seconds / config.federation.local_steps * 1e3
            row["gain of 2"] = row["ms, 1 in flight"] / row["ms, 2 in flight"]
            row["gain of 4"] = row["ms, 1 in flight"] / row["ms, 4 in flight"]
            rows.append(row)
    return rows


def trained(turns: int) -> list[dict[str, Any]]:
    """Processor and simulated seconds of the same rounds, in turns."""
    sims = {}
    sources = open_sources(config_of(TRAINED, "balanced", 1, "quick start"))
    for wire in WIRES:
        for count in COUNTS:
            config = config_of(TRAINED, wire, count, "quick start")
            sims[wire, count] = Simulation(build_federation(config, sources)), config
    spent: dict[tuple[str, int], list[float]] = {key: [] for key in sims}
    simulated: dict[tuple[str, int], list[float]] = {key: [] for key in sims}
    for turn in range(turns + 1):
        for key, (simulation, config) in sims.items():
            began, before = process_time(), simulation.seconds
            simulation.train_round()
            steps = config.federation.local_steps
            if turn:  # the first one also compiles and warms up
                spent[key].append((process_time() - began) / steps / config.federation.devices)
                simulated[key].append((simulation.seconds - before) / steps)
    return [
        {
            "wire": wire,
            "in flight": count,
            "cpu ms a step": statistics.median(spent[wire, count]) * 1e3,
            "times the cpu": statistics.median(
                one / base for one, base in zip(spent[wire, count], spent[wire, 1], strict=True)
            ),
            "simulated ms a step": statistics.median(simulated[wire, count]) * 1e3,
            "gain": statistics.median(
                base / one
                for one, base in zip(simulated[wire, count], simulated[wire, 1], strict=True)
            ),
        }
        for wire, count in sims
    ]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--parts", nargs="*", default=["trained", "planned"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    prepare(1)
    kept = options.out is not None and options.out.is_file()
    results: dict[str, Any] = json.loads(options.out.read_text("utf-8")) if kept else {}
    results |= {"machine": machine(), "commit": commit(), "settings": TRAINED, "links": LINKS}
    if "trained" in options.parts:
        results["trained"] = trained(options.turns)
    if "planned" in options.parts:
        results["planned"] = planned()
    if options.out:
        write_json(options.out, {k: it for k, it in results.items() if k != "command"})
    for part in options.parts:
        print_table(results[part])


if __name__ == "__main__":
    main()

"""What does a federation lose when a party is killed or frozen, and how soon is it noticed?

Real processes under mutual TLS: two edges, three devices, one cloud. Each cell strikes one party
at one place of the first round. A killed party is started again, a frozen cloud thaws after a
while; a frozen device or edge stays frozen until the run is over. Prints a table, writes JSON; a
cell that is there already is not run again.

    python benchmarks/faults.py --out docs/results/faults.json
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
from measured import machine, print_table, write_json
from parties import GO_ON, KILL, STOP, Parties, Strike

from elsa.config.load import load_config
from elsa.config.schema import Config

PHASES = {
    "registered": ("device-0", "Welcome", 0),
    "adapters down": ("device-0", "LocalPlan", 0),
    "mid-step": ("device-0", "Gradients", 1),
    "adapters up": ("device-0", "Update", 0),
    "aggregation": ("cloud", "EdgeUpdate", 0),
    "checkpoint": ("cloud", "round_finished", 0),
}
"""Who sees which message or event, and how many before it."""
EDGES, DEVICES = ("edge-0", "edge-1"), ("device-0", "device-1", "device-2")
WHO = ("device-0", "edge-0", "cloud")
SIGNALS = {"killed": KILL, "frozen": STOP}
ROUNDS = 3
SAYS = {
    "device-0": ("edge-0", "the stream of device-0 ended"),
    "edge-0": ("device-0", "link to edge-0 at"),
    "cloud": ("edge-0", "the stream of cloud ended"),
}
"""Who notices, and what it says then."""
SHORT_FREEZE = 3.0
PATIENCE = 150.0


@dataclass(frozen=True)
class Cell:
    """A fault: who is struck how, and where in the round."""

    who: str
    how: str
    phase: str

    @property
    def strike(self) -> Strike:
        """What the harness is to do."""
        sees, kind, nth = PHASES[self.phase]
        return Strike(sees, kind, nth, SIGNALS[self.how], self.who)


ORDER = ("mid-step", "checkpoint", "aggregation", "adapters up", "adapters down", "registered")
CELLS = [Cell(who, how, phase) for phase in ORDER for how in SIGNALS for who in WHO]
"""The most telling ones first."""


def settings(*overrides: str) -> Config:
    """Of a short run that does not wait long for anybody."""
    base = [
        "data.labels=['ABBR', 'DESC', 'ENTY', 'HUM', 'LOC', 'NUM']",
        "data.limit=120",
        "data.holdout_fraction=0.0",
        "model.max_tokens=32",
        "model.precision=float32",
        "run.threads=1",
        "partition.kind=iid",
        "federation.devices=3",
        "federation.edges=2",
        f"federation.rounds={ROUNDS}",
        "federation.edge_rounds=1",
        "federation.local_steps=3",
        "train.batch_size=4",
        f"evaluate.every={ROUNDS}",
        "deploy.answer_seconds=30",
        "deploy.reconnect_seconds=6",
        "deploy.round_seconds=90",
    ]
    return load_config(None, [*base, *overrides])


def play(cell: Cell, config: Config, folder: Path) -> dict[str, Any]:
    """Run a federation that is struck so, and say what became of it."""
    began, struck = monotonic(), folder / "struck"
    with Parties(config, folder, cell.strike) as parties:
        parties.start(*EDGES, *DEVICES)
        if cell.phase == "registered":
            parties.start("cloud")
        else:  # else the first round would begin with whoever was quick
            for name in DEVICES:
                there = lambda name=name: "is at edge" in parties.log(name)  # noqa: E731
                parties.wait(there, PATIENCE, f"{name} is there")
            parties.start("cloud")
        parties.wait(struck.exists, PATIENCE, f"{cell}: the place of the strike")
        moment = float(struck.read_text())
        if cell.how == "killed":
            sleep(0.5)
            parties.start(cell.who)
        elif cell.who == "cloud":
            sleep(SHORT_FREEZE)
            parties.signal("cloud", GO_ON)
        parties.wait(lambda: parties.ended("cloud") is not None, PATIENCE, "the end of the run")
        parties.signal(cell.who, GO_ON)
        left = [it for it in (*EDGES, *DEVICES) if (cell.how, cell.who) != ("frozen", it)]
        parties.wait(
            lambda: all(parties.ended(it) is not None for it in left), PATIENCE, "all to end"
        )
        by, words = SAYS[cell.who]
        noticed = parties.when(by, words, moment)
        status = {it: parties.ended(it) for it in ("cloud", *left)}
    told = [json.loads(line) for line in lines(folder / "run" / "events.jsonl")]
    finished = [it["round"] for it in told if it["kind"] == "round_finished"]
    lost = [f"{it['device']} in round {it['round']}" for it in told if it["kind"] == "device_lost"]
    moved = [
        f"{it['device']} from {it['before'] or 'nowhere'} to {it['edge'] or 'nowhere'}"
        for it in told
        if it["kind"] == "device_placed" and (it["round"] >= 0 or it["before"])
    ]
    return {
        "who": cell.who,
        "how": cell.how,
        "phase": cell.phase,
        "noticed_seconds": None if noticed is None else round(noticed - moment, 3),
        "rounds_finished": len(set(finished)),
        "lost": lost,
        "moved": moved,
        "ended_well": all(it == 0 for it in status.values()),
        "wall_seconds": round(monotonic() - began, 1),
        "load_average": psutil.getloadavg()[0],
    }


def lines(path: Path) -> list[str]:
    """Of a file."""
    return path.read_text(encoding="utf-8").splitlines()


def main(cells: Sequence[Cell] = CELLS) -> None:
    """Play the cells that are not there yet, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--most", type=int, default=len(cells), help="cells to run now")
    options = parser.parse_args()
    done: dict[str, Any] = {"machine": machine(), "cells": []}
    if options.out and options.out.exists():
        done["cells"] = json.loads(options.out.read_text(encoding="utf-8"))["cells"]
    there = {(it["who"], it["how"], it["phase"]) for it in done["cells"]}
    todo = [cell for cell in cells if (cell.who, cell.how, cell.phase) not in there]
    for cell in todo[: options.most]:
        with tempfile.TemporaryDirectory() as folder:
            done["cells"].append(play(cell, settings(), Path(folder)))
        print_table(done["cells"][-1:])
        if options.out:
            write_json(options.out, done)


if __name__ == "__main__":
    main()

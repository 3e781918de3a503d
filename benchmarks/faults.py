"""What does a federation lose when a party is killed or frozen, and how soon is it noticed?

Real processes under mutual TLS, with MiniLM and questions of TREC.

1. Two edges, three devices, one cloud; each cell strikes one party at one place of the first
   round. A killed party is started again, a frozen cloud thaws after a while; a frozen device or
   edge stays frozen until the run is over.
2. Two edges, six devices: runs in which nothing happens, and the same with one device killed in
   the second round, which nobody starts again. How long each round took, and how well the adapters
   do on the 120 test questions, which no party holds.

Prints a table, writes JSON. What is there already is not run again, but for cells that failed, or
that were measured while the load average was over --load; so it may be stopped and gone on with.

    python benchmarks/faults.py --out docs/results/faults.json
"""

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any

import psutil
from measured import machine, print_table, write_json
from parties import GO_ON, KILL, STOP, Parties, Strike, struck

from elsa.config.load import load_config
from elsa.config.schema import Config
from elsa.engine.build import assignment_of, build_federation, device_names, open_sources
from elsa.engine.simulate import Simulation
from elsa.record.checkpoint import load_checkpoint

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
    "device-0": ("edge-0", ("the stream of device-0 ended", "device-0 began a session")),
    "edge-0": ("device-0", ("link to edge-0 at",)),
    "cloud": ("edge-0", ("the stream of cloud ended", "cloud began a session")),
}
"""Who notices, and what it says then: one of these, whichever is first."""
SHORT_FREEZE = 3.0
PATIENCE = 150.0
"""Seconds for each thing that must happen."""
AFTERWARDS = 20.0
"""Seconds until those are taken to wait whose edge could not be told that the run is over."""
STEPS, SEEDS = 6, (0, 1, 2)
SIX = (
    "federation.devices=6",
    "federation.rounds=5",
    f"federation.local_steps={STEPS}",
    "evaluate.every=5",
    "data.limit=600",
    "train.batch_size=8",
    "deploy.answer_seconds=60",
    "deploy.round_seconds=300",
)
"""Of the runs with six devices."""


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

    def play(self, folder: Path) -> dict[str, Any]:
        """See `play`."""
        return play(self, settings(), folder)


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
        "wire.preset=exact",
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


def play(cell: Cell, config: Config, folder: Path, patience: float = PATIENCE) -> dict[str, Any]:
    """Run a federation that is struck so, and say what became of it.

    Raises:
        TimeoutError: something that must happen did not, in `patience` seconds.
    """
    began = monotonic()
    edges, devices = list(assignment_of(config)), device_names(config)
    with Parties(config, folder, cell.strike) as parties:
        parties.start(*edges, *devices)
        if cell.phase == "registered":
            parties.start("cloud")
        else:  # else the first round would begin with whoever was quick
            for name in devices:
                there = lambda name=name: "is at edge" in parties.log(name)  # noqa: E731
                parties.wait(there, patience, f"{name} is there")
            parties.start("cloud")
        parties.wait(lambda: struck(folder), patience, f"{cell}: the place of the strike")
        (moment,), thawed = struck(folder), math.inf
        if cell.how == "killed":
            sleep(0.5)
            parties.start(cell.who)
        elif cell.who == "cloud":
            sleep(SHORT_FREEZE)
            thawed = time()
            parties.signal("cloud", GO_ON)
        parties.wait(lambda: parties.ended("cloud") is not None, patience, "the end of the run")
        parties.signal(cell.who, GO_ON)
        frozen = cell.who if cell.how == "frozen" else None
        left = [it for it in (*edges, *devices) if it != frozen]
        untold = any(f"{it} could not be told" in parties.log("cloud") for it in edges)
        try:
            parties.wait(
                lambda: all(parties.ended(it) is not None for it in left),
                AFTERWARDS if untold else patience,
                "all to end",
            )
        except TimeoutError:
            if not untold:
                raise
        noticed = noticed_at(parties, cell.who, moment)
        if noticed is not None and noticed > thawed:
            noticed = None  # what was said then is that the run is over
        waiting = [it for it in left if parties.ended(it) is None]
        status = {it: parties.ended(it) for it in ("cloud", *left) if it not in waiting}
    told = events(folder)
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
        "waiting": waiting,
        "ended_well": all(it == 0 for it in status.values()),
        "wall_seconds": round(monotonic() - began, 1),
        "load_average": psutil.getloadavg()[0],
    }


@dataclass(frozen=True)
class Six:
    """A run of six devices, one of which may be killed in the second round."""

    seed: int
    killed: bool

    def play(self, folder: Path) -> dict[str, Any]:
        """See `six`."""
        return six(self.seed, folder, killed=self.killed)


def six(seed: int, folder: Path, *, killed: bool) -> dict[str, Any]:
    """How a run of six devices ends.

    Raises:
        TimeoutError: something that must happen did not.
    """
    config = settings(*SIX, f"run.seed={seed}")
    second = 2 * STEPS + 2  # a device sees its gradients go and others come, each step
    strikes = [Strike("device-0", "Gradients", second, KILL, "device-0")] if killed else []
    with Parties(config, folder, *strikes) as parties:
        parties.start(*assignment_of(config), *device_names(config))
        for name in device_names(config):
            there = lambda name=name: "is at edge" in parties.log(name)  # noqa: E731
            parties.wait(there, PATIENCE, f"{name} is there")
        parties.start("cloud")
        parties.wait(lambda: parties.ended("cloud") is not None, PATIENCE, "the end of the run")
        status = parties.ended("cloud")
        moment = struck(folder)[0] if killed else 0.0
        noticed = noticed_at(parties, "device-0", moment) if killed else None
    told = events(folder)
    rounds = [it["wall_seconds"] for it in told if it["kind"] == "round_finished"]
    return {
        "seed": seed,
        "killed": killed,
        "accuracy": accuracy(config, folder),
        "noticed_seconds": None if noticed is None else round(noticed - moment, 3),
        "lost": [it["round"] for it in told if it["kind"] == "device_lost"],
        "round_seconds": [round(it, 2) for it in rounds],
        "deadline_seconds": config.deploy.round_seconds,
        "ended_well": status == 0,
        "load_average": psutil.getloadavg()[0],
    }


def noticed_at(parties: Parties, who: str, after: float) -> float | None:
    """When somebody said that a party is gone, in seconds since 1970."""
    by, words = SAYS[who]
    said = (parties.when(by, it, after) for it in words)
    return min((it for it in said if it is not None), default=None)


def accuracy(config: Config, folder: Path) -> float:
    """Of the adapters that a run ended with, on the test rows of its text."""
    federation = build_federation(config, open_sources(config))
    found = load_checkpoint(folder / "run")
    ended = {name.partition("/")[2]: value for name, value in found.tensors.items()}
    federation.cloud.restore(ended, found.round)
    return Simulation(federation).evaluate()["test"].accuracy


def events(folder: Path) -> list[dict[str, Any]]:
    """Of a run, in order."""
    text = (folder / "run" / "events.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def compared(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread of the accuracy of the runs with six devices."""
    table = []
    for killed in (False, True):
        found = [it["accuracy"] for it in runs if it["killed"] is killed]
        if found:
            spread = statistics.stdev(found) if len(found) > 1 else None
            table.append(
                {
                    "a device killed": killed,
                    "runs": len(found),
                    "accuracy": statistics.mean(found),
                    "standard deviation": spread,
                }
            )
    return table


def of(job: tuple[str, Cell | Six], done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is there of a job."""
    kind, what = job
    return [it for it in done[kind] if asdict(what).items() <= it.items()]


def good(found: Mapping[str, Any], load: float) -> bool:
    """Whether a result can stay."""
    return "failed" not in found and found["load_average"] <= load


def main() -> None:
    """Play what is not there yet, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--most", type=int, default=1000, help="cells and runs to play now")
    parser.add_argument("--load", type=float, default=1e9, help="see above")
    options = parser.parse_args()
    done: dict[str, Any] = {"machine": machine(), "cells": [], "six": []}
    if options.out and options.out.exists():
        done |= json.loads(options.out.read_text(encoding="utf-8"))
        del done["command"]

    jobs: list[tuple[str, Cell | Six]] = [("cells", it) for it in CELLS]
    jobs += [("six", Six(seed, killed)) for seed in SEEDS for killed in (False, True)]
    todo = [job for job in jobs if not any(good(it, options.load) for it in of(job, done))]
    for kind, job in todo[: options.most]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = job.play(Path(folder))
            except TimeoutError as error:
                found = asdict(job) | {"failed": str(error).partition("\n")[0]}
        before = of((kind, job), done)
        done[kind] = [*(it for it in done[kind] if it not in before), found]
        print_table([found])
        if options.out:
            write_json(options.out, done)
    if done["six"]:
        print_table(compared([it for it in done["six"] if "failed" not in it]))


if __name__ == "__main__":
    main()

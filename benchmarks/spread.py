"""What does it cost to have edges in processes of Ray? `elsa run` on both engines, in turns.

On one core, where the edges of both compute one after the other, the difference is what Ray takes:
its own processes, what crosses, and what is done twice. On two, each of two edges has a core, and
one process has both for its threads. Time is from the first checkpoint to the last, so with
evaluation and checkpoints and without the start, told apart: on the clock, and as processor
time of all processes together, which counts what Ray does while it waits. Processes are looked
at twice a second. Memory is that of all of them, shared parts counted once. Both engines must end
with the same adapters where both compute with one thread. Prints a table, writes JSON.

    python benchmarks/spread.py --out docs/results/spread.json
"""

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import time
from typing import Any

import psutil
from measured import machine, print_table, write_json

from elsa.record.log import read_events

SETTINGS = (
    "federation.edges=2",
    "federation.edge_rounds=2",
    "federation.local_steps=5",
    "evaluate.every=1000",
)
ARMS = {
    "embedded, one core": ("embedded", 1, 1),
    "ray, one core": ("ray", 1, 1),
    "embedded, two cores": ("embedded", 2, 2),
    "ray, two cores": ("ray", 2, 1),
}
"""Engine, cores that it may use, threads of a process."""
MEASURES = ("ms_a_sample", "cpu_ms_a_sample", "rest_s", "rest_cpu_s", "peak_mb")


@dataclass
class Watched:
    """What a process and those below it took.

    Attributes:
        peak: most memory of all together, in bytes.
        spent: processor seconds of all by then, by the time of each look.
    """

    peak: int = 0
    spent: list[tuple[float, float]] = field(default_factory=list)
    _each: dict[int, float] = field(default_factory=dict)

    def wait_for(self, process: subprocess.Popen[bytes]) -> None:
        """Look until it ends."""
        looked = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.Error):
                self._look([looked, *looked.children(recursive=True)])
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)

    def by(self, when: float) -> float:
        """Processor seconds by a time, between looks in proportion."""
        for (one, less), (two, more) in pairwise([(0.0, 0.0), *self.spent]):
            if one <= when <= two:
                return less + (more - less) * (when - one) / (two - one)
        return self.spent[-1][1]

    def _look(self, processes: list[psutil.Process]) -> None:
        memory = 0
        for each in processes:
            with suppress(psutil.Error):
                times = each.cpu_times()
                self._each[each.pid] = times.user + times.system
                memory += each.memory_full_info().pss
        self.peak = max(self.peak, memory)
        self.spent.append((time(), sum(self._each.values())))


def play(arm: str, settings: tuple[str, ...]) -> dict[str, Any]:
    """A run on an engine."""
    engine, cores, threads = ARMS[arm]
    words = [part for it in (*settings, f"run.threads={threads}") for part in ("--set", it)]
    with tempfile.TemporaryDirectory(prefix="spread-") as folder:
        out, log = Path(folder) / "run", Path(folder) / "log"
        command = (sys.executable, "-m", "elsa.cli.main", "run", "--engine", engine, *words)
        began, watched = time(), Watched()
        with log.open("wb") as file:
            process = subprocess.Popen(
                (*command, "--out", str(out)), stdout=file, stderr=subprocess.STDOUT
            )
            usable = sorted(os.sched_getaffinity(0))[:cores]
            os.sched_setaffinity(process.pid, usable)  # and of all that it starts
            watched.wait_for(process)
        whole = time() - began
        if process.returncode:
            sys.exit(log.read_text(encoding="utf-8"))
        events = read_events(out / "events.jsonl")
        adapter = (out / "adapter" / "adapter_model.safetensors").read_bytes()
    saved = [it.time for it in events if it.event.kind == "checkpoint_saved"]
    samples = sum(it.event.samples for it in events if it.event.kind == "round_finished")
    first, last = saved[0], saved[-1]
    computed = watched.by(last) - watched.by(first)
    return {
        "ms_a_sample": 1e3 * (last - first) / samples,
        "cpu_ms_a_sample": 1e3 * computed / samples,
        "rest_s": whole - (last - first),
        "rest_cpu_s": watched.spent[-1][1] - computed,
        "peak_mb": watched.peak / 1e6,
        "adapter": hashlib.sha256(adapter).hexdigest(),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    options = parser.parse_args()
    own = (f"federation.devices={options.devices}", f"federation.rounds={options.rounds}")
    settings = (*SETTINGS, *own, *options.settings)
    turns = [{arm: play(arm, settings) for arm in options.arms} for _ in range(options.turns)]
    alike = {turn[arm]["adapter"] for turn in turns for arm in options.arms if ARMS[arm][2] == 1}
    if len(alike) > 1:
        sys.exit("engines with one thread each ended with different adapters")
    rows = []
    for arm in options.arms:
        base = arm.replace("ray", "embedded")
        middle = {it: statistics.median(turn[arm][it] for turn in turns) for it in MEASURES}
        ratios = {
            f"{name}_ratio": statistics.median(turn[arm][it] / turn[base][it] for turn in turns)
            for name, it in (("time", "ms_a_sample"), ("cpu", "cpu_ms_a_sample"))
        }
        rows.append({"arm": arm, **middle, **ratios})
    print_table(rows)
    if options.out:
        facts = {"machine": machine(), "settings": settings}
        write_json(options.out, facts | {"rows": rows, "turns": turns})


if __name__ == "__main__":
    main()

"""What does it cost to have edges in processes of Ray? `elsa run` on both engines, in turns.

On one core, where the edges of both compute one after the other, the difference is what Ray takes:
its own processes, what crosses, and what is done twice. On two, each of two edges has a core, and
one process has both for its threads. Time is from the first checkpoint to the last, so with
evaluation and checkpoints and without the start, which is told apart (until the first round).
Memory is that of all processes together, shared parts counted once, looked at every second. Both
engines must end with the same adapters where both compute with one thread. Prints a table, writes
JSON.

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
from pathlib import Path
from time import monotonic
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


def play(arm: str, settings: tuple[str, ...]) -> dict[str, Any]:
    """A run on an engine."""
    engine, cores, threads = ARMS[arm]
    words = [part for it in (*settings, f"run.threads={threads}") for part in ("--set", it)]
    with tempfile.TemporaryDirectory(prefix="spread-") as folder:
        out, log = Path(folder) / "run", Path(folder) / "log"
        command = (sys.executable, "-m", "elsa.cli.main", "run", "--engine", engine, *words)
        usable = sorted(os.sched_getaffinity(0))[:cores]
        began = monotonic()
        with log.open("wb") as file:
            process = subprocess.Popen(
                (*command, "--out", str(out)),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            os.sched_setaffinity(process.pid, usable)  # and of all that it starts
            peak = watched(process)
        whole = monotonic() - began
        if process.returncode:
            sys.exit(log.read_text(encoding="utf-8"))
        events = read_events(out / "events.jsonl")
        saved = [it.time for it in events if it.event.kind == "checkpoint_saved"]
        adapter = (out / "adapter" / "adapter_model.safetensors").read_bytes()
    samples = sum(it.event.samples for it in events if it.event.kind == "round_finished")
    return {
        "ms_a_sample": 1e3 * (saved[-1] - saved[0]) / samples,
        "rest_s": whole - (saved[-1] - saved[0]),
        "peak_mb": peak / 1e6,
        "adapter": hashlib.sha256(adapter).hexdigest(),
    }


def watched(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; the most memory that it and those below it had, in bytes."""
    peak, looked = 0, psutil.Process(process.pid)
    while True:
        with suppress(psutil.Error):
            total = 0
            for each in (looked, *looked.children(recursive=True)):
                with suppress(psutil.Error):
                    total += each.memory_full_info().pss
            peak = max(peak, total)
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
            return peak


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
        middle = {
            name: statistics.median(turn[arm][name] for turn in turns)
            for name in ("ms_a_sample", "rest_s", "peak_mb")
        }
        ratios = [turn[arm]["ms_a_sample"] / turn[base]["ms_a_sample"] for turn in turns]
        rows.append({"arm": arm, **middle, "time_ratio": statistics.median(ratios)})
    print_table(rows)
    if options.out:
        facts = {"machine": machine(), "settings": settings}
        write_json(options.out, facts | {"rows": rows, "turns": turns})


if __name__ == "__main__":
    main()

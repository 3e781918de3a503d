"""Does a sample cost the same with a thousand devices as with ten, in time and in memory?

Runs of `elsa run` that differ in the number of devices alone, each in a process of its own: every
device has as many rows, and takes as many local steps of as many rows. Time a sample is of all
rounds but the first, without the start and the last evaluation; memory is the peak of the whole
process, by the operating system's account. Turns are interleaved. Prints a table, writes JSON.

    python benchmarks/scale.py --out docs/results/scale.json
"""

import argparse
import csv
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from measured import machine, print_table, run_alone, write_json

ROWS, STEPS, ROUNDS = 4, 1, 3
SETTINGS = (
    f"federation.rounds={ROUNDS}",
    "federation.edge_rounds=1",
    f"federation.local_steps={STEPS}",
    f"train.batch_size={ROWS}",
    "partition.kind=iid",
    "partition.min_rows=1",
    "data.holdout_fraction=0",
    "evaluate.every=1000",
    "run.threads=1",
)


def play(devices: int, settings: tuple[str, ...]) -> dict[str, Any]:
    """A run with so many devices."""
    own = (f"federation.devices={devices}", f"data.limit={ROWS * devices}")
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        peak = run_alone((*SETTINGS, *settings, *own), Path(folder))
        out = Path(folder) / "run"
        with (out / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rounds = list(csv.DictReader(file))[1:]
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        kept = sum(it.stat().st_size for it in (out / "checkpoint").iterdir()) / 2
    samples = sum(int(it["samples"]) for it in rounds)
    seconds = sum(float(it["wall_seconds"]) for it in rounds)
    return {
        "ms_a_sample": 1e3 * seconds / samples,
        "wall_s": summary["wall_seconds"],
        "peak_mb": peak / 1e6,
        "checkpoint_mb": kept / 1e6,
        "samples": samples,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    options = parser.parse_args()
    settings = tuple(options.settings)
    turns = [{it: play(it, settings) for it in options.devices} for _ in range(options.turns)]
    least = min(options.devices)
    rows = []
    for devices in options.devices:
        of = [turn[devices] for turn in turns]
        ratios = {
            f"{name}_ratio": statistics.median(
                turn[devices][name] / turn[least][name] for turn in turns
            )
            for name in ("ms_a_sample", "peak_mb")
        }
        middle = {name: statistics.median(it[name] for it in of) for name in of[0]}
        rows.append({"devices": devices, **middle, **ratios})
    print_table(rows)
    if options.out:
        facts = {"machine": machine(), "settings": [*SETTINGS, *settings]}
        write_json(options.out, facts | {"rows": rows, "turns": turns})


if __name__ == "__main__":
    main()

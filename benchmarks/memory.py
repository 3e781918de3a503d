"""Does memory stay flat as simulated devices grow?

Runs `elsa run` with 10 and with 100 devices, in turn, each as a process of its own, and takes the
peak resident memory from the operating system's account of the finished process. On the exact wire:
others remember what they sent, which grows with the texts. Prints a table, writes JSON.

    python benchmarks/memory.py --out docs/results/memory.json
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from measured import machine, print_table, run_alone, write_json

# With 100 devices TREC leaves about 40 rows a device, so fewer must be allowed.
COMMON = (
    "federation.rounds=2",
    "federation.edge_rounds=1",
    "federation.local_steps=5",
    "partition.min_rows=4",
    "wire.preset=exact",
)


def peak_rss(devices: int) -> int:
    """Bytes of the largest resident memory of a run with so many devices."""
    with tempfile.TemporaryDirectory() as folder:
        return run_alone((*COMMON, f"federation.devices={devices}"), Path(folder))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    turns = [{devices: peak_rss(devices) for devices in (10, 100)} for _ in range(options.turns)]
    ratios = [turn[100] / turn[10] for turn in turns]
    rows: list[dict[str, Any]] = [
        {
            "devices": devices,
            "peak_rss_mb": statistics.median(turn[devices] for turn in turns) / 1e6,
            "ratio_to_10": statistics.median(ratios) if devices == 100 else 1.0,
            "ratio_max": max(ratios) if devices == 100 else 1.0,
        }
        for devices in (10, 100)
    ]
    print_table(rows)
    if options.out:
        write_json(options.out, {"machine": machine(), "settings": COMMON, "rows": rows})


if __name__ == "__main__":
    main()

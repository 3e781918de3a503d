"""What does each defence cost in accuracy, and what do attacks still learn from the transcript?

Each cell is one run of `elsa run` with the settings of an arm, recorded and attacked as `elsa
audit` does it; finished cells are kept, and the same command goes on. Writes cells/ARM/SEED.json
and a table: accuracy, and how well each attack on tokens, labels and members does.

    python benchmarks/privacy.py --out docs/results/privacy
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic
from typing import Any

from measured import machine, print_table
from wire import write

from elsa.audit.audit import Settings
from elsa.cli.audit import attack_run
from elsa.config.load import load_config
from elsa.engine.machine import prepare
from elsa.engine.run import run

ARMS: dict[str, tuple[str, ...]] = {
    "none": (),
    "ssop-16": ("ssop.rank=16", "ssop.angle=1.0"),
    "ssop-384": ("ssop.rank=384", "ssop.angle=1.0"),
    "ssop-16-batch": ("ssop.rank=16", "ssop.angle=1.0", "ssop.fresh='batch'"),
    "ssop-384-0.3": ("ssop.rank=384", "ssop.angle=0.3"),
    "balanced": ("wire.preset=balanced",),
    "tiny": ("wire.preset=tiny",),
    "sketch-2": ("wire.preset=paper",),
    "rotated-2-bit": ("wire.h1=rotate+quantize:2:token:gauss",),
    "bottom-2": ("split.bottom=2",),
    "bottom-3": ("split.bottom=3",),
    "noise-0.1": ("noise.ratio=0.1",),
    "noise-0.3": ("noise.ratio=0.3",),
    "top-0": ("split.top=0",),
    "frozen-bottom": ("split.freeze=bottom",),
    "bottom-3-ssop-64": ("split.bottom=3", "ssop.rank=64", "ssop.angle=1.0"),
}
"""Defences, and what is sometimes taken for one: settings of `elsa run`."""

COLUMNS = {
    "matching": ("tokens", "matching", "recovery"),
    "adaptive": ("tokens", "matching, adaptive", "recovery"),
    "known texts": ("tokens", "known texts", "recovery"),
    "inverter": ("tokens", "inverter", "recovery"),
    "adaptive inverter": ("tokens", "inverter, adaptive", "recovery"),
    "labels": ("labels", "gradients", "accuracy"),
    "known labels": ("labels", "known labels", "accuracy"),
    "membership": ("membership", "loss", "AUC"),
}


def cell(arm: str, seed: int, extra: Sequence[str], settings: Settings) -> dict[str, Any]:
    """One run of an arm, attacked."""
    overrides = ["audit.record_rounds=2", *extra, *ARMS[arm], f"run.seed={seed}"]
    config = load_config(None, overrides)
    with tempfile.TemporaryDirectory(prefix="privacy-") as folder:
        began = monotonic()
        done = run(config, out=Path(folder) / "run")
        trained = monotonic() - began
        rows = attack_run(done.directory, done.directory, settings, _say)
    return {
        "settings": overrides,
        "attack": asdict(settings),
        "accuracy": done.summary["accuracy"],
        "samples": done.summary["samples"],
        "run_seconds": trained,
        "attack_seconds": monotonic() - began - trained,
        "rows": [asdict(row) for row in rows],
    }


def table(out: Path) -> list[dict[str, Any]]:
    """A row an arm: means over the seeds that are there."""
    found = []
    for arm in ARMS:
        cells = [
            json.loads(path.read_text("utf-8")) for path in (out / "cells" / arm).glob("*.json")
        ]
        if not cells:
            continue
        row: dict[str, Any] = {"arm": arm, "accuracy": _mean(it["accuracy"] for it in cells)}
        for name, key in COLUMNS.items():
            row[name] = _mean(
                it["score"]["value"]
                for each in cells
                for it in each["rows"]
                if (it["about"], it["attack"], it["measure"]) == key
            )
        found.append(row | {"seeds": len(cells)})
    return found


def _mean(values: Any) -> float | str:
    held = list(values)
    return statistics.mean(held) if held else "-"


def _say(line: str) -> None:
    sys.stderr.write(f"  {line}\n")


def main() -> None:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--texts", type=int, default=120)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit-minutes", type=float, help="start no cell after so many")
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="extra", help="in all cells"
    )
    options = parser.parse_args()
    prepare(options.threads)
    end = monotonic() + 60 * options.limit_minutes if options.limit_minutes else float("inf")
    due = [] if options.only_table else [(a, s) for s in options.seeds for a in options.arms]
    for arm, seed in due:
        path = options.out / "cells" / arm / f"{seed}.json"
        if path.is_file() or monotonic() > end:
            continue
        sys.stderr.write(f"{arm} {seed} begins\n")
        settings = replace(Settings(), texts=options.texts, seed=seed)
        extra = [f"run.threads={options.threads}", *options.extra]
        write(path, cell(arm, seed, extra, settings) | {"machine": machine()})
    rows = table(options.out)
    if rows:
        print_table(rows)
        write(options.out / "privacy.json", rows)


if __name__ == "__main__":
    main()

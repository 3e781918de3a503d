"""Accuracy against bytes: every codec of the wire, SS-OP, and what trains without a split.

A cell is a data set, an arm (see wire_arms.py) and a seed: the quick start with 10 devices, 2 edges
and labels spread by a Dirichlet distribution of 0.5, evaluated at the end, in a process of its own.
A finished cell is a file below OUT/cells and is not run again, so the study can be stopped, gone on
with, and run in parts; tables and plots are made of the cells that are there. A cell that fails is
written to OUT/failed.json and left alone until --retry.

    python benchmarks/wire.py --out docs/results/wire
    python benchmarks/wire.py --out docs/results/wire --datasets trec --arms exact rotated --seeds 0
    python benchmarks/wire.py --out docs/results/wire --only-table
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

from measured import commit
from wire_arms import ARMS, BASE, DATASETS, EXACT, Cell, choose, settings_of
from wire_table import write_tables

from elsa.config.load import load_config
from elsa.errors import ElsaError

ROOT = Path(__file__).parents[1]
SCORES = ("accuracy", "accuracy_mean_device", "accuracy_worst_device", "loss")
KEPT = (*SCORES, "samples", "wall_seconds", "bytes")
"""What a cell keeps of a summary."""


class CellError(Exception):
    """A run that came to nothing, and why."""


class Study:
    """The cells of an output folder, and the processes that fill them."""

    def __init__(self, out: Path, extra: Sequence[str], jobs: int, deadline: float) -> None:
        """Take results below `out`; `extra` settings go to every cell, none starts after it."""
        self._out = out
        self._extra = extra
        self._jobs = jobs
        self._deadline = deadline
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    @property
    def failed(self) -> dict[str, Any]:
        """Failed cells by name."""
        path = self._out / "failed.json"
        found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        return found

    def path(self, cell: Cell) -> Path:
        """Where a finished cell lies."""
        return self._out / "cells" / f"{cell.name}.json"

    def check(self, cells: Sequence[Cell]) -> None:
        """Refuse results that were made with other settings."""
        for cell in cells:
            if not self.path(cell).is_file():
                continue
            held = json.loads(self.path(cell).read_text("utf-8"))["settings"]
            if held != settings_of(cell, self._extra):
                sys.exit(
                    f"{self.path(cell)} was made with other settings than this study's: "
                    f"{sorted(set(held) ^ set(settings_of(cell, self._extra)))}; "
                    "delete it, or take another --out"
                )

    def run(self, cells: Sequence[Cell], *, retry: bool) -> None:
        """Run what is not there yet."""
        failed = self.failed
        due = [
            cell
            for cell in cells
            if not self.path(cell).is_file() and (retry or cell.name not in failed)
        ]
        _say(f"{len(cells)} cells, {len(due)} to run")
        signal.signal(signal.SIGTERM, _interrupt)
        with ThreadPoolExecutor(self._jobs) as pool:
            try:
                for done in [pool.submit(self._cell, cell) for cell in due]:
                    done.result()
            except BaseException:
                self._stop()
                raise

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    def _cell(self, cell: Cell) -> None:
        if self._stopped or monotonic() > self._deadline:
            return
        began = monotonic()
        _say(f"{cell.name} begins")
        settings = settings_of(cell, self._extra)
        facts = {"settings": settings, "commit": commit()}
        try:
            with tempfile.TemporaryDirectory(prefix="wire-") as folder:
                result = self._outcome(cell, settings, Path(folder) / "run")
        except (CellError, ValueError) as error:
            if not self._stopped:
                self._note(cell, {"error": str(error), **facts})
                _say(f"{cell.name} FAILED: {error}")
            return
        write(self.path(cell), result | facts)
        self._note(cell, None)
        _say(f"{cell.name} {result['accuracy']:.4f} in {monotonic() - began:.0f} s")

    def _outcome(self, cell: Cell, settings: Sequence[str], folder: Path) -> dict[str, Any]:
        pairs = [word for setting in (*BASE, *settings) for word in ("--set", setting)]
        if cell.arm.kind == "full":
            script = str(ROOT / "benchmarks/federated.py")
            command = [script, "--seed", str(cell.seed), "--json", *pairs]
        else:
            if cell.arm.kind == "lora":
                pairs += ["--set", "run.method=hierarchical-fedavg"]
            command = ["-m", "elsa.cli.main", "run", "--json", "--out", str(folder), *pairs]
        summary = json.loads(self._call([sys.executable, *command]))
        lost = _lost(folder / "events.jsonl")
        if summary.get("accuracy") is None:
            raise CellError(lost[0] if lost else "the run has no accuracy")
        kept = {name: summary.get(name) for name in KEPT}
        return kept | {"lost_device_rounds": len(lost), "lost_first": lost[0] if lost else None}

    def _call(self, command: Sequence[str]) -> str:
        with self._lock:
            if self._stopped:
                raise CellError("stopped")
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            self._running.add(process)
        try:
            output, errors = process.communicate()
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode:
            lines = [line for line in errors.splitlines() if line.strip()]
            raise CellError(lines[-1] if lines else f"exit status {process.returncode}")
        return output

    def _note(self, cell: Cell, failure: dict[str, Any] | None) -> None:
        with self._lock:
            failed = self.failed
            if failure is None and cell.name not in failed:
                return
            failed.pop(cell.name, None)
            if failure is not None:
                failed[cell.name] = failure
            write(self._out / "failed.json", failed)


def write(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _lost(events: Path) -> list[str]:
    """Why devices were lost in a run, one line each time; empty where it wrote no events."""
    if not events.is_file():
        return []
    rows = [json.loads(line) for line in events.read_text("utf-8").splitlines()]
    return [row["reason"] for row in rows if row["kind"] == "device_lost"]


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> None:
    """Run the cells, write tables and plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", choices=list(DATASETS), default=list(DATASETS))
    parser.add_argument("--arms", nargs="+", default=[], help="slugs, or parts of names; all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="cells side by side")
    parser.add_argument("--limit-minutes", type=float, help="start no cell after so many")
    parser.add_argument("--retry", action="store_true", help="run failed cells again")
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    parser.add_argument("--list", action="store_true", help="name the arms and stop")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="extra", help="in all cells"
    )
    options = parser.parse_args()
    if options.list:
        for arm in ARMS:
            sys.stdout.write(f"{arm.slug:30} {arm.kind:6} {' '.join(arm.settings)}\n")
        return
    try:
        arms = choose(options.arms)
        first = Cell(options.datasets[0], EXACT, 0)
        load_config(None, [*BASE, *settings_of(first, options.extra)])
    except (ValueError, ElsaError) as error:
        sys.exit(str(error))
    limit = monotonic() + 60 * options.limit_minutes if options.limit_minutes else float("inf")
    study = Study(options.out, options.extra, options.jobs, limit)
    cells = [Cell(d, arm, seed) for seed in options.seeds for d in options.datasets for arm in arms]
    study.check(cells)
    try:
        if not options.only_table:
            study.run(cells, retry=options.retry)
    except KeyboardInterrupt:
        _say("stopped; finished cells are kept, the same command goes on")
        sys.exit(130)
    write_tables(options.out, options.extra)
    for name, failure in study.failed.items():
        _say(f"failed: {name}: {failure['error']}")


if __name__ == "__main__":
    main()

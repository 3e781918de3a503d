"""Are groups of devices found, attackers told apart, and what is it worth in accuracy?

A cell is a short run (see clustering_cells.py). All cells of one command run in one process, one
after the other; a finished one is a file below OUT/cells and is not run again, so the study can be
stopped, gone on with, and run in parts. Tables and plots are made of the cells that are there. A
cell that fails is written to OUT/failed.json and left alone until --retry.

    python benchmarks/clustering.py --out docs/results/clustering
    python benchmarks/clustering.py --out docs/results/clustering --parts groups --seeds 0
    python benchmarks/clustering.py --out docs/results/clustering --only-table
"""

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from time import monotonic, process_time
from typing import Any, NoReturn

import numpy as np
import torch
from clustering_cells import GROUPS, PARTS, Cell, data_of, ordered, settings_of
from measured import commit
from wire import write

import elsa
from elsa.config.load import load_config
from elsa.core.cluster import cluster
from elsa.engine.poison import poisoned
from elsa.errors import ElsaError
from elsa.record import events

KEPT = ("accuracy", "accuracy_mean_device", "accuracy_worst_device", "loss", "samples", "bytes")
"""What a cell keeps of a summary, besides what happened."""
JUDGED = ("round", "edge_round", "device", "step", "prediction", "trust", "weight")


WIRE = "wire.preset=exact"
"""Of all cells. It was the default when the first were made, so it is no part of the settings that
cells are known by."""


class Diary:
    """What a cell keeps of a run's events."""

    def __init__(self) -> None:
        self.judged: list[list[Any]] = []
        self.curve: list[list[float | None]] = []
        self.placed: dict[str, str] = {}
        self.lost: list[str] = []
        self._seconds = 0.0

    def __call__(self, event: events.Event) -> None:
        """Note an event."""
        match event:
            case events.DeviceJudged():
                row = [getattr(event, name) for name in JUDGED]
                self.judged.append([round(it, 4) if isinstance(it, float) else it for it in row])
            case events.RoundFinished():
                self._seconds += event.simulated_seconds
            case events.Evaluated():
                scores = (event.accuracy, event.accuracy_worst_device, self._seconds)
                self.curve.append([event.round, *scores])
            case events.DevicePlaced():
                self.placed[event.device] = event.edge
            case events.DeviceLost():
                self.lost.append(f"{event.device}: {event.reason}")
            case _:
                pass


def outcome(cell: Cell) -> dict[str, Any]:
    """Run a cell.

    Raises:
        ElsaError: it cannot be run.
    """
    began, busy = monotonic(), process_time()
    with tempfile.TemporaryDirectory(prefix="clustering-") as folder:
        rows = data_of(cell, Path(folder) / "rows")
        config = load_config(None, [WIRE, *settings_of(cell), *rows])
        diary = Diary()
        result = elsa.run(config, out=Path(folder) / "run", listen=diary)
        names = sorted(diary.placed, key=lambda name: int(name.rpartition("-")[2]))
        kept: dict[str, Any] = {name: result.summary.get(name) for name in KEPT}
        kept |= {
            "curve": diary.curve,
            "judged": diary.judged,
            "edges": [diary.placed[name] for name in names],
            "poisoned": sorted(names.index(name) for name in poisoned(config, names)),
            "lost": diary.lost,
        }
        if cell.part == "groups":
            kept |= _clustered(Path(folder) / "run/clusters/round-000000.npz", names)
    kept |= {"wall_s": round(monotonic() - began, 1), "cpu_s": round(process_time() - busy, 1)}
    return kept


def _clustered(path: Path, names: list[str]) -> dict[str, Any]:
    """Clusters by eigengap, as the run made them, and by the true number, in order of devices."""
    with np.load(path) as held:
        place = {str(name): number for number, name in enumerate(held["devices"])}
        order = [place[name] for name in names]
        given = cluster(torch.from_numpy(held["apart"]), GROUPS, 0).labels.numpy()
        return {
            "by_eigengap": held["labels"][order].tolist(),
            "by_number": given[order].tolist(),
            "plane": held["plane"][order].round(3).tolist(),
            "apart": held["apart"][order][:, order].round(4).tolist(),
        }


class Study:
    """The cells of an output folder."""

    def __init__(self, out: Path, deadline: float) -> None:
        """Take results below `out`; no cell starts after `deadline`."""
        self._out = out
        self._deadline = deadline

    @property
    def failed(self) -> dict[str, str]:
        """Failed cells by name, and why."""
        path = self._out / "failed.json"
        return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}

    def path(self, cell: Cell) -> Path:
        """Where a finished cell lies."""
        return self._out / "cells" / f"{cell.name}.json"

    def due(self, cells: list[Cell], *, retry: bool) -> list[Cell]:
        """Those to run; results made with other settings than these are refused."""
        failed = {} if retry else self.failed
        found = []
        for cell in cells:
            if not self.path(cell).is_file():
                found += [] if cell.name in failed else [cell]
            elif json.loads(self.path(cell).read_text("utf-8"))["settings"] != list(
                settings_of(cell)
            ):
                sys.exit(
                    f"{self.path(cell)} was made with other settings than this study's: "
                    "delete it, or take another --out"
                )
        return found

    def run(self, cells: list[Cell]) -> None:
        """Run cells until the deadline."""
        for number, cell in enumerate(cells, 1):
            if monotonic() > self._deadline:
                return
            failed = self.failed
            failed.pop(cell.name, None)
            try:
                result = outcome(cell)
            except ElsaError as error:
                write(self._out / "failed.json", failed | {cell.name: str(error)})
                _say(f"{number} of {len(cells)}: {cell.name} FAILED: {error}")
                continue
            facts = {"settings": settings_of(cell), "commit": commit()}
            write(self.path(cell), result | facts)
            if failed != self.failed:
                write(self._out / "failed.json", failed)
            times = f"{result['cpu_s']:.0f} s of processor, {result['wall_s']:.0f} s"
            _say(f"{number} of {len(cells)}: {cell.name} {result['accuracy']:.4f} in {times}")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> None:
    """Run the cells, write tables and plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=[""], help="parts of names of arms; all")
    parser.add_argument("--limit-minutes", type=float, help="start no cell after so many")
    parser.add_argument("--retry", action="store_true", help="run failed cells again")
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    parser.add_argument("--list", action="store_true", help="name the cells and stop")
    options = parser.parse_args()
    cells = [
        cell
        for cell in ordered(tuple(options.parts), tuple(options.seeds))
        if any(word in cell.arm for word in options.arms)
    ]
    if options.list:
        for cell in cells:
            sys.stdout.write(f"{cell.name:40} {' '.join(settings_of(cell))}\n")
        return
    signal.signal(signal.SIGTERM, _interrupt)
    limit = monotonic() + 60 * options.limit_minutes if options.limit_minutes else float("inf")
    study = Study(options.out, limit)
    due = study.due(cells, retry=options.retry)
    _say(f"{len(cells)} cells, {len(due)} to run")
    try:
        if not options.only_table:
            study.run(due)
    except KeyboardInterrupt:
        _say("stopped; finished cells are kept, the same command goes on")
        sys.exit(130)
    from clustering_table import write_tables  # late: it draws

    write_tables(options.out)
    for name, reason in study.failed.items():
        _say(f"failed: {name}: {reason}")


if __name__ == "__main__":
    main()

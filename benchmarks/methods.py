"""ELSA beside centralised, federated and split training, on the same rows, seeds and budget.

A cell is a run of a method in a setting (see methods_cells.py), made by the machinery of `elsa
compare` in a process of its own. What is kept of a finished one is a file below OUT/cells, and it
is not run again; so the study can be stopped, gone on with, and run in slices over days. Learning
rates are chosen first, by parts named tune-CORPUS, whose results are kept as well. Tables and plots
are made of what is there. Run directories lie below --work until they are read, so that a run that
was cut short is gone on with; a cell that failed is left alone until --retry.

    python benchmarks/methods.py --out docs/results/methods
    python benchmarks/methods.py --out docs/results/methods --parts tune-trec trec-0.5 --hours 2
    python benchmarks/methods.py --out docs/results/methods --only-table
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from methods_cells import AGAINST, PARTS, SEEDS, Part
from methods_kept import Kept

from elsa.cli.stopping import stoppable
from elsa.compare.cells import Cell, finished
from elsa.compare.processes import Pool
from elsa.compare.study import FAILED, Question, Study, Watch
from elsa.config.methods import METHODS
from elsa.errors import ElsaError, Interrupted


@dataclass
class Slice:
    """How much of the study this command runs.

    Attributes:
        most: cells that are left to run.
        jobs: runs side by side, one thread each.
        stop: whether to begin no more, and to interrupt what runs.
        retry: whether to run again what failed.
    """

    most: int
    jobs: int
    stop: Callable[[], bool]
    retry: bool


class Runner:
    """Runs parts, each as a comparison in a folder of its own."""

    def __init__(self, kept: Kept, work: Path) -> None:
        """Keep results in `kept`; run directories lie below `work`."""
        self._kept = kept
        self._work = work

    def due(self, part: Part) -> list[Cell]:
        """Cells that nothing is kept of; raises RunError for results of other settings."""
        cells = part.cells(self._kept.rates(part.setting.corpus), SEEDS)
        return [cell for cell in cells if self._kept.read(part.setting, cell) is None]

    def run(self, part: Part, slice_: Slice) -> None:
        """Run what is due of a part, as far as the slice goes.

        Raises:
            Interrupted: the slice says so; what is finished is kept.
        """
        folder, setting = self._work / part.setting.name, part.setting
        methods = [*dict.fromkeys((AGAINST, *part.methods))]
        study = Study(setting.config(), Question(methods, [0], AGAINST), folder)
        plans = self._kept.without_plan(part)
        due = [
            cell
            for cell in self.due(part)
            if slice_.retry or _key(cell, folder) not in study.failed
        ]
        if not part.cells(self._kept.rates(setting.corpus)):
            _say(f"{part.name}: learning rates are chosen first, by tune-{setting.corpus.name}")
        if slice_.most <= 0 or not (due or plans):
            return
        due = due[: slice_.most]
        slice_.most -= len(due)
        _say(f"{part.name}: {len(due)} runs")

        def harvest(cells: Sequence[Cell]) -> None:
            for cell in cells:
                if not self._kept.has(setting, cell) and finished(
                    cell, folder / "base.toml", folder
                ):
                    self._kept.keep(setting, cell, cell.folder(folder))
                    shutil.rmtree(cell.folder(folder))
            for name in plans:
                self._kept.keep_plan(setting.corpus, name, folder / "plans" / f"{name}.json")

        def say(line: str) -> None:
            # Others may still write to their folders.
            harvest([cell for cell in due if line.startswith(f"{_key(cell, folder)} ")])
            _say(f"{part.name}: {line}")

        harvest(due)
        left = [cell for cell in due if not self._kept.has(setting, cell)]
        pool = Pool(slice_.jobs, 1, slice_.stop)
        watch = Watch(say, lambda *_: None)
        try:
            study.fill(left, pool, watch, plans=plans, retry=slice_.retry)
        finally:
            harvest(due)
        for name, error in study.failed.items():
            _say(f"failed, and left out until --retry: {folder / FAILED}: {name}: {error}")


def _key(cell: Cell, folder: Path) -> str:
    return str(cell.folder(folder).relative_to(folder))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _list(runner: Runner, parts: Sequence[Part], kept: Kept) -> None:
    for part in parts:
        cells, due = part.cells(kept.rates(part.setting.corpus), SEEDS), runner.due(part)
        runs = len(cells) or len(part.methods) * len(SEEDS)
        state = f"{len(cells) - len(due)} kept" if cells else "learning rates not chosen yet"
        sys.stdout.write(f"{part.name:30} {runs:3} runs, {state}\n")


def main() -> None:
    """Run the cells, write tables and plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/methods"), help="run directories")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--most", type=int, default=10**6, help="runs, at most")
    parser.add_argument("--hours", type=float, help="stop after so many; what runs is gone on with")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, a thread each")
    parser.add_argument("--retry", action="store_true", help="run failed cells again")
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    parser.add_argument("--list", action="store_true", help="name the parts and stop")
    options = parser.parse_args()
    kept = Kept(options.out)
    runner, parts = Runner(kept, options.work), []
    for part in (PARTS[name] for name in options.parts):
        chosen = tuple(name for name in part.methods if name in options.methods)
        parts += [replace(part, methods=chosen)] if chosen else []
    limit = monotonic() + 3600 * options.hours if options.hours else float("inf")
    try:
        if options.list:
            _list(runner, parts, kept)
            return
        if not options.only_table:
            with stoppable("runs keep their last checkpoint", _say) as stopped:
                slice_ = Slice(
                    options.most,
                    options.jobs,
                    lambda: bool(stopped) or monotonic() > limit,
                    options.retry,
                )
                for part in parts:
                    runner.run(part, slice_)
    except Interrupted:
        _say("stopped; what is finished is kept, and the same command goes on")
    except ElsaError as error:
        sys.exit(str(error))
    from methods_table import write_tables  # late: it draws

    write_tables(kept)


if __name__ == "__main__":
    main()

"""A comparison from its config to its results: what is not there yet is run, the rest is read."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elsa.compare.cells import Cell, check_methods, config_of, finished, prepare_base
from elsa.compare.numbers import best_rate
from elsa.compare.outcome import Outcome, read_cost, read_outcome
from elsa.compare.processes import Ended, Job, Pool
from elsa.compare.results import Results, make_results
from elsa.config.methods import untaken_problem
from elsa.config.schema import Config
from elsa.errors import ConfigError, Interrupted
from elsa.record.atomic import write_atomically
from elsa.record.directory import read_summary
from elsa.record.lines import read_lines
from elsa.record.manifest import read_manifest

RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
"""Learning rates that each method may choose from, unless others are given."""
FAILED = "failed.json"


@dataclass(frozen=True)
class Question:
    """What to compare.

    Attributes:
        methods: names, in the order of the tables.
        seeds: of the runs.
        against: the method that differences are to.
        rates: learning rates that each method chooses from; empty takes the config's for all.
        tuning_seed: of the runs in which it chooses.
        target: accuracy that is waited for; None takes a part of the best.
    """

    methods: Sequence[str]
    seeds: Sequence[int]
    against: str
    rates: Sequence[float] = ()
    tuning_seed: int = 100
    target: float | None = None


@dataclass(frozen=True)
class Watch:
    """Whom a comparison tells how it goes.

    Attributes:
        say: told what happens, a line each.
        running: told now and then (jobs done, jobs in all, rounds of the running ones by name).
    """

    say: Callable[[str], None]
    running: Callable[[int, int, Mapping[str, tuple[int, int]]], None]


class Study:
    """The cells of a folder."""

    def __init__(self, config: Config, question: Question, out: Path) -> None:
        """Set up a folder, or take it as it is.

        Raises:
            ConfigError: there is no such method, one cannot take the config, or none takes a part
                of it.
            RunError: the folder holds another comparison.
        """
        check_methods([*question.methods])
        if problem := untaken_problem(config, question.methods):
            raise ConfigError(problem)
        if question.against not in question.methods:
            raise ConfigError(
                f"--against {question.against}: name one of the methods compared, "
                f"{', '.join(question.methods)}"
            )
        if question.rates and question.tuning_seed in question.seeds:
            raise ConfigError(
                f"--tuning-seed {question.tuning_seed} is among the seeds reported: rates must be "
                "chosen on another"
            )
        self._question = question
        self._out = out
        self._base = prepare_base(config, out)
        for name in question.methods:
            config_of(Cell(name, 0), self._base)

    def run(self, pool: Pool, watch: Watch, *, retry: bool = False) -> None:
        """Run what is not there yet: first what chooses the rates, then the cells and plans.

        Raises:
            Interrupted: the pool was asked to stop; everything finished is kept.
        """
        self.fill(self._tuning_cells(), pool, watch, retry=retry)
        self.fill(self.cells(), pool, watch, plans=self._question.methods, retry=retry)

    def fill(
        self,
        cells: Sequence[Cell],
        pool: Pool,
        watch: Watch,
        *,
        plans: Sequence[str] = (),
        retry: bool = False,
    ) -> None:
        """Run those of these cells that are not there yet, and plans of these methods.

        Raises:
            Interrupted: as `run`.
        """
        self._work(self._due(cells, retry), self._plans(plans), pool, watch)

    def cells(self) -> list[Cell]:
        """What is reported, seed by seed, so that a part of it already compares all methods."""
        rates = {name: self._rate(name) for name in self._question.methods}
        return [
            Cell(name, seed, rates[name])
            for seed in self._question.seeds
            for name in self._question.methods
            if not self._question.rates or rates[name] is not None
        ]

    def results(self) -> Results:
        """What the finished cells say."""
        question = self._question
        outcomes = [
            read_outcome(cell.folder(self._out), cell.method, cell.seed)
            for cell in self.cells()
            if finished(cell, self._base, self._out)
        ]
        costs = {name: read_cost(self._plan(name), name) for name in question.methods}
        remarks = {name: self._remark(name, outcomes) for name in question.methods}
        return make_results(
            question.methods, outcomes, costs, question.against, question.target, remarks
        )

    def facts(self) -> dict[str, Any]:
        """Versions and machine of the first finished cell, and what was tuned."""
        for cell in self.cells():
            if finished(cell, self._base, self._out):
                manifest = read_manifest(cell.folder(self._out))
                held = {"versions": manifest.versions, "machine": manifest.machine}
                return held | {"tuning": self._tuned(), "base": self._base.read_text("utf-8")}
        return {}

    @property
    def failed(self) -> dict[str, str]:
        """Why cells failed, by name."""
        path = self._out / FAILED
        found: dict[str, str] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        return found

    def _tuning_cells(self) -> list[Cell]:
        question = self._question
        return [
            Cell(name, question.tuning_seed, rate, tuning=True)
            for rate in question.rates
            for name in question.methods
        ]

    def _tuned(self) -> dict[str, dict[float, float]]:
        """Mean accuracy on the devices' own held-out rows, by method and rate."""
        found: dict[str, dict[float, float]] = {}
        for cell in self._tuning_cells():
            if cell.rate is not None and finished(cell, self._base, self._out):
                outcome = read_outcome(cell.folder(self._out), cell.method, cell.seed)
                found.setdefault(cell.method, {})[cell.rate] = outcome.own
        return found

    def _rate(self, method: str) -> float | None:
        """The best rate; None where nothing was tuned."""
        return best_rate(self._tuned().get(method, {}))

    def _remark(self, method: str, outcomes: Sequence[Outcome]) -> str:
        rates, parts = self._question.rates, []
        rate = self._rate(method)
        if rate is not None and len(rates) > 1 and rate in (min(rates), max(rates)):
            parts.append(f"its best rate, {rate:g}, lies at the end of the grid")
        missing = len(self._question.seeds) - sum(it.method == method for it in outcomes)
        if missing:
            parts.append(f"{missing} of {len(self._question.seeds)} seeds are missing")
        return "; ".join(parts)

    def _plan(self, method: str) -> Path:
        return self._out / "plans" / f"{method}.json"

    def _plans(self, methods: Sequence[str]) -> list[Job]:
        settings = (f"run.seed={self._question.seeds[0]}", "run.threads=1")
        return [
            Job(f"plan of {name}", self._words("plan", [f"run.method={name}", *settings]), path)
            for name in methods
            if not (path := self._plan(name)).is_file()
        ]

    def _words(self, command: str, settings: Sequence[str]) -> list[str]:
        pairs = [word for setting in settings for word in ("--set", setting)]
        return [command, str(self._base), "--json", *pairs]

    def _due(self, cells: Sequence[Cell], retry: bool) -> list[Cell]:
        failed = self.failed
        return [
            cell
            for cell in cells
            if not finished(cell, self._base, self._out)
            and (retry or self._key(cell) not in failed)
        ]

    def _key(self, cell: Cell) -> str:
        return str(cell.folder(self._out).relative_to(self._out))

    def _job(self, cell: Cell, threads: int) -> Job:
        folder = cell.folder(self._out)
        if (folder / "manifest.json").is_file():
            return Job(self._key(cell), ["resume", str(folder), "--json"])
        words = self._words("run", cell.settings(threads))
        return Job(self._key(cell), [*words, "--out", str(folder)])

    def _work(self, cells: Sequence[Cell], more: Sequence[Job], pool: Pool, watch: Watch) -> None:
        jobs = [*(self._job(cell, pool.threads) for cell in cells), *more]
        rounds = {self._key(cell): config_of(cell, self._base).federation.rounds for cell in cells}
        running: list[str] = []
        done: list[str] = []

        def began(job: Job) -> None:
            running.append(job.name)

        def ended(it: Ended) -> None:
            name = it.job.name
            running.remove(name)
            if it.error and pool.stop():
                return
            done.append(name)
            self._note(name, it.error)
            watch.say(f"{name} FAILED: {it.error}" if it.error else self._said(name))

        def tick() -> None:
            shown = {name: (self._passed(name), rounds.get(name, 0)) for name in running}
            watch.running(len(done), len(jobs), shown)

        pool.run(jobs, began, ended, tick)
        if pool.stop():
            raise Interrupted("stopped; what is finished is kept, and the same command goes on")

    def _said(self, name: str) -> str:
        folder = self._out / name
        summary = read_summary(folder) if (folder / "manifest.json").is_file() else None
        if summary is None or summary.get("accuracy") is None:
            return f"{name} done"
        return f"{name} {summary['accuracy']:.4f} in {summary['wall_seconds']:.0f} s"

    def _passed(self, name: str) -> int:
        """Rounds that a running cell has done."""
        path = self._out / name / "metrics.csv"
        return max(len(read_lines(path)) - 1, 0) if path.is_file() else 0

    def _note(self, name: str, error: str) -> None:
        failed = self.failed
        if not error and name not in failed:
            return
        failed.pop(name, None)
        if error:
            failed[name] = error
        write_atomically(self._out / FAILED, json.dumps(failed, indent=1).encode() + b"\n")

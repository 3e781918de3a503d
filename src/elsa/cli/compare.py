"""`elsa compare`: its options, its progress, and the tables that it prints."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer.core import TyperCommand

from elsa.cli.stopping import stoppable
from elsa.config.load import load_config
from elsa.config.methods import METHODS
from elsa.errors import ConfigError

COMPARISONS = Path("comparisons")
"""Where comparisons go unless told otherwise."""
MAIN = (
    "centralised",
    "fedavg",
    "hierarchical-fedavg",
    "splitlora",
    "splitfed-v1",
    "splitfed-v2",
    "hierarchical-split",
    "elsa",
)
"""Methods that are compared unless others are named."""
_SEVERAL = ("--methods", "--seeds", "--rates")


class Several(TyperCommand):
    """A command whose options of `_SEVERAL` take all words up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat such an option before each of its words."""
        spread: list[str] = []
        option = ""
        for word in args:
            if word.startswith("--"):
                option = word if word in _SEVERAL else ""
                spread += [] if option else [word]
            elif option:
                spread += [part for each in word.split(",") if each for part in (option, each)]
            else:
                spread.append(word)
        return super().parse_args(ctx, spread)


def compare(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file or preset; the quick start if left out.")
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option(metavar="NAME ...", help="What to compare; see --list.")
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option(metavar="N ...", help="Seeds of the runs; 0 1 2.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="NAME", help="Method that differences are to.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of all methods."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of it all; comparisons/NAME if left out.")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Let each method choose its learning rate first.")
    ] = False,
    rates: Annotated[
        list[float] | None, typer.Option(metavar="RATE ...", help="Rates to choose from.")
    ] = None,
    tuning_seed: Annotated[int, typer.Option(min=0, help="Seed that rates are chosen on.")] = 100,
    target: Annotated[
        float | None, typer.Option(min=0, max=1, help="Accuracy to wait for.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Runs side by side; 0 is one a core.")] = 0,
    retry: Annotated[bool, typer.Option("--retry", help="Run again what failed.")] = False,
    only_table: Annotated[bool, typer.Option("--only-table", help="Run nothing.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Say what the methods are.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the results alone, as JSON.")
    ] = False,
) -> None:
    """Train the same rows, seeds and budget by several methods; tables, CSV, JSON and plots."""
    if list_:
        for name, method in METHODS.items():
            sys.stdout.write(f"{name:20} {method.title}: {method.what}\n")
        return
    settings = load_config(config, set_ or [])
    # Imported late: help and config errors come at once.
    from elsa.compare.processes import Pool
    from elsa.compare.study import RATES, Question, Study
    from elsa.compare.write import write_results

    names = methods or list(MAIN)
    preferred = "hierarchical-fedavg"
    question = Question(
        methods=names,
        seeds=_once(seeds or [0, 1, 2]),
        against=against or (preferred if preferred in names else names[0]),
        rates=(rates or RATES) if tune else (),
        tuning_seed=tuning_seed,
        target=target,
    )
    if rates and not tune:
        raise ConfigError("--rates are chosen from with --tune; add it, or set train.learning_rate")
    folder = out or COMPARISONS / settings.run.name
    study = Study(settings, question, folder)
    if not only_table:
        with _Shown() as shown, stoppable(_STOPPING) as stopped:
            side_by_side, threads = _budget(jobs)
            pool = Pool(side_by_side, threads, lambda: bool(stopped))
            study.run(pool, shown.watch, retry=retry)
    results = study.results()
    for name, error in study.failed.items():
        sys.stderr.write(f"failed, and left out until --retry: {name}: {error}\n")
    if not results.rows:
        raise ConfigError(f"{folder}: holds no finished run of these methods and seeds")
    files = write_results(folder, results, study.facts(), _command())
    if json_:
        sys.stdout.write((folder / "compare.json").read_text(encoding="utf-8"))
        return
    _show(results)
    for path in files:
        sys.stdout.write(f"{path}\n")


_STOPPING = "running methods keep their last checkpoint"


def _once(seeds: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(seeds))


def _budget(jobs: int) -> tuple[int, int]:
    """Runs side by side, and threads of each: together no more than the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    side_by_side = jobs or cores
    return side_by_side, max(cores // side_by_side, 1)


def _command() -> str:
    """What makes these results from nothing."""
    left_out = ("--only-table", "--retry", "--json")
    return " ".join(["elsa", *(word for word in sys.argv[1:] if word not in left_out)])


class _Shown:
    """A bar on a terminal, and a line for each run that ended."""

    def __init__(self) -> None:
        from elsa.compare.study import Watch

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[now]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", now="")
        self.watch = Watch(self._say, self._running)

    def __enter__(self) -> "_Shown":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _say(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _running(self, done: int, of: int, rounds: Mapping[str, tuple[int, int]]) -> None:
        now = ", ".join(f"{name} {at}/{last}" for name, (at, last) in rounds.items())
        parts = sum(at / last for at, last in rounds.values() if last)
        what = f"{done} of {of} runs"
        self._bar.update(self._task, completed=done + parts, total=of, description=what, now=now)


def _show(results: Any) -> None:
    from elsa.compare.table import Lines, accuracy_table, cost_table, remarks

    makers: tuple[Callable[[Any], Lines], ...] = (accuracy_table, cost_table)
    for make in makers:
        titles, *rows = make(results)
        widths = [max(map(len, cells)) for cells in zip(titles, *rows, strict=True)]
        # Cells cut short would say less than lines that a narrow terminal breaks.
        console = Console(width=sum(widths) + 2 * len(widths))
        table = Table(*titles, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        console.print()
    for line in remarks(results):
        sys.stdout.write(f"{line}\n")

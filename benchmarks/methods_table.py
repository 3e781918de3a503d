"""The comparison of methods as Markdown, CSV, JSON and plots, of the cells that are there."""

import json
import math
import shlex
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from measured import machine
from methods_cells import (
    ABLATIONS,
    AGAINST,
    CORPORA,
    MAIN,
    PARTS,
    RATES,
    SEEDS,
    TUNED_AS,
    Corpus,
    Setting,
)
from methods_kept import Kept, Result

from elsa.compare.numbers import Difference, best_rate, difference, spread
from elsa.compare.outcome import Outcome
from elsa.compare.plots import draw_accuracy
from elsa.compare.results import Results, make_results, title_of
from elsa.compare.table import accuracy_table, cost_table, markdown, points, share, to_csv
from elsa.record.atomic import write_atomically

ROWS = 10
"""Held-out rows that a device has at least, to be looked at for itself."""
Scores = Mapping[int, float | None]
"""A number of a method by seed."""
RIVALS = ("splitlora", "splitfed-v1", "splitfed-v2")
WITHIN = -0.01
"""Of mean accuracy to hierarchical FedAvg: what is asked of ELSA."""


def worst_device(outcome: Outcome) -> float | None:
    """Least accuracy of a device with ROWS held-out rows or more; None without such devices."""
    return min(_shares(outcome), default=None)


def lowest_fifth(outcome: Outcome) -> float | None:
    """Mean accuracy of the fifth of these devices where it is least."""
    held = sorted(_shares(outcome))
    return statistics.fmean(held[: math.ceil(len(held) / 5)]) if held else None


def _shares(outcome: Outcome) -> list[float]:
    return [right / of for right, of in outcome.devices.values() if of >= ROWS]


_SCORES: Mapping[str, Callable[[Outcome], float | None]] = {
    "accuracy": lambda it: it.accuracy,
    "worst": worst_device,
    "fifth": lowest_fifth,
}


@dataclass(frozen=True)
class Page:
    """A setting with what is kept of it, by method and seed; methods without any are missing."""

    setting: Setting
    methods: Sequence[str]
    runs: Mapping[str, Mapping[int, Result]]
    results: Results

    def scores(self, method: str, score: str) -> Scores:
        """A number of a method by seed: accuracy, worst or fifth."""
        held = self.runs.get(method, {})
        return {seed: _SCORES[score](it.outcome) for seed, it in held.items()}

    def gap(self, method: str, other: str, score: str) -> Difference | None:
        """Method less other, seed by seed."""
        return difference(self.scores(method, score), self.scores(other, score))


def settings() -> dict[str, tuple[Setting, tuple[str, ...], list[str]]]:
    """Each setting by name, its methods in the order of tables, and its parts."""
    found: dict[str, tuple[Setting, tuple[str, ...], list[str]]] = {}
    for part in PARTS.values():
        if part.setting.tuning:
            continue
        _, methods, parts = found.get(part.setting.name, (part.setting, (), []))
        every = {*methods, *part.methods}
        ordered = tuple(it for it in dict.fromkeys((*MAIN, *ABLATIONS)) if it in every)
        found[part.setting.name] = (part.setting, ordered, [*parts, part.name])
    return found


def page_of(kept: Kept, setting: Setting, methods: Sequence[str]) -> Page:
    """What is kept of a setting."""
    rates = kept.rates(setting.corpus)
    runs: dict[str, dict[int, Result]] = {}
    for part in PARTS.values():
        if part.setting != setting:
            continue
        for cell in part.cells(rates, SEEDS):
            if (result := kept.read(setting, cell)) is not None:
                runs.setdefault(cell.method, {})[cell.seed] = result
    outcomes = [it.outcome for own in runs.values() for it in own.values()]
    costs = {name: kept.cost(setting.corpus, name) for name in methods}
    return Page(setting, methods, runs, make_results(methods, outcomes, costs, AGAINST))


def write_tables(kept: Kept) -> None:
    """Write README.md, methods.json, and a CSV file and a plot a setting.

    README.md ends with discussion.txt, where there is one.

    Raises:
        RunError: a result was made with other settings.
    """
    out, every = kept.out, settings()
    out.mkdir(parents=True, exist_ok=True)
    pages = {name: page_of(kept, it, methods) for name, (it, methods, _) in every.items()}
    lines = [_opening(out), _measures([*pages.values()]), _rates(kept)]
    for name, page in pages.items():
        if page.runs:
            draw_accuracy(out / f"{name}.svg", page.results)
            write_atomically(out / f"{name}.csv", to_csv(page.results).encode())
        clean = pages.get(name.removesuffix("-poisoned"))
        lines.append(_section(page, clean, out, every[name][2]))
    discussion = out / "discussion.txt"
    if discussion.is_file():
        lines.append(discussion.read_text("utf-8"))
    write_atomically(out / "README.md", "\n".join(lines).encode())
    tables = {
        name: {key: it for key, it in page.results.to_dict().items() if key != "outcomes"}
        for name, page in pages.items()
    }
    content = {"machine": machine(), "seeds": SEEDS, "settings": tables}
    write_atomically(out / "methods.json", json.dumps(content, indent=1).encode() + b"\n")


def _command(out: Path, parts: Iterable[str] = ()) -> str:
    words = ["python", "benchmarks/methods.py", "--out", str(out)]
    return shlex.join([*words, *(("--parts", *parts) if parts else ())])


def _opening(out: Path) -> str:
    return f"""# Methods side by side

    {_command(out)}

What each setting is lies in `benchmarks/methods_cells.py`; the machinery is that of
`elsa compare`. All methods of a setting train the same rows on the same devices, as many local
steps in all, with a learning rate each chose of {", ".join(f"{it:g}" for it in RATES)} with as
many tries, on a seed that is not reported. 20 devices and 4 edges (SmolLM2: 8 and 4), runs of
24 or 32 local steps a device (SmolLM2: 12): short, so that seeds and methods could be many.
Accuracy is that of the common test rows after the last round, mean ± standard deviation of seeds
{", ".join(map(str, SEEDS))}; points are hundredths of difference, seed by seed, with Student's
interval at 95 %. "Worst device" is the lowest accuracy of any device on its own held-out rows,
which may be a single row; "worst of {ROWS} rows" leaves out devices with fewer than {ROWS}, and
"lowest fifth" is the mean of the fifth of these devices that fare worst. A dash is what has not
been run.
"""


def _measures(pages: Sequence[Page]) -> str:
    """What was asked of ELSA, and what was found."""
    lines = [["asked of ELSA", "corpus", "points", "seeds", "found"]]
    for page in pages:
        if page.setting.poisoned:
            continue
        corpus, layout = page.setting.corpus.title, page.setting.layout
        asked: list[tuple[str, str, str, float]] = []
        if layout == "0.5":
            title = f"within 1 point of {title_of(AGAINST)} in accuracy, Dirichlet 0.5"
            asked = [(title, AGAINST, "accuracy", WITHIN)]
        elif layout == "0.1":
            asked = [
                (f"ahead of {title_of(it)} in {words}, Dirichlet 0.1", it, score, 0.0)
                for words, score in (
                    (f"worst device of {ROWS} rows", "worst"),
                    ("lowest fifth", "fifth"),
                )
                for it in RIVALS
            ]
        for title, other, score, bound in asked:
            gap = page.gap("elsa", other, score)
            seeds = str(gap.count) if gap else "0"
            lines.append([title, corpus, points(gap), seeds, verdict(gap, bound)])
    return "## What was asked\n\n" + markdown(lines)


def verdict(gap: Difference | None, bound: float) -> str:
    """Whether a difference is above a bound: by its mean, and by its interval."""
    if gap is None:
        return "-"
    met = "yes" if gap.mean > bound else "no"
    if gap.low is None or gap.high is None or gap.low <= bound <= gap.high:
        return f"{met}, as far as so few seeds tell"
    return met


def _rates(kept: Kept) -> str:
    lines = ["## Learning rates", ""]
    lines += ["Mean accuracy on the devices' own held-out rows, seed 100, in runs half as long."]
    twins = [it for it in TUNED_AS if it not in ABLATIONS]
    named = ", ".join(f"{title_of(it)} that of {title_of(TUNED_AS[it])}" for it in twins)
    lines += [f"{named}, which learn the same; ablations take ELSA's.", ""]
    rows = [["corpus", "method", *(f"{rate:g}" for rate in RATES), "chosen"]]
    for corpus in CORPORA.values():
        rows += _rates_of(corpus, kept.tuned(corpus))
    return "\n".join([*lines, markdown(rows)])


def _rates_of(corpus: Corpus, tuned: Mapping[str, Mapping[float, float]]) -> list[list[str]]:
    rows = []
    for method, scores in tuned.items():
        shown = [f"{scores[rate]:.3f}" if rate in scores else "-" for rate in RATES]
        best = best_rate(scores) if len(scores) == len(RATES) else None
        edge = " (end of the grid)" if best in (min(RATES), max(RATES)) else ""
        chosen = "-" if best is None else f"{best:g}{edge}"
        rows.append([corpus.title, title_of(method), *shown, chosen])
    return rows


def _section(page: Page, clean: Page | None, out: Path, parts: Sequence[str]) -> str:
    lines = [f"## {page.setting.title}", "", f"    {_command(out, parts)}", ""]
    if not page.runs:
        return "\n".join([*lines, "Not run yet.", ""])
    name = page.setting.name
    lines += [f"![Accuracy and worst device, {page.setting.title}]({name}.svg)", ""]
    lines.append(markdown(_accuracy(page)))
    missing = [
        f"{title_of(method)} ({len(SEEDS) - len(page.runs.get(method, {}))} of {len(SEEDS)})"
        for method in page.methods
        if len(page.runs.get(method, {})) < len(SEEDS)
    ]
    if missing:
        lines += [f"Runs that are missing: {', '.join(missing)}.", ""]
    if page.setting.poisoned and clean is not None:
        lines.append(markdown(_attacked(page, clean)))
    if any(it.lost for own in page.runs.values() for it in own.values()):
        lost = {it: sum(run.lost for run in own.values()) for it, own in page.runs.items()}
        named = ", ".join(f"{title_of(it)} {count}" for it, count in lost.items() if count)
        lines += [f"Devices lost, over all rounds and seeds: {named}.", ""]
    if page.setting.layout in ("0.5", "iid") and not page.setting.poisoned:
        lines.append(markdown(_costs(page)))
    return "\n".join(lines)


def _accuracy(page: Page) -> list[list[str]]:
    """The table of `elsa compare`, and two columns with their differences."""
    titles, *rows = accuracy_table(page.results)
    made = [[*titles, f"worst of {ROWS} rows", "points there", "lowest fifth", "points there"]]
    for row, held in zip(rows, page.results.rows, strict=True):
        method, more = held.method, list[str]()
        for score in ("worst", "fifth"):
            more.append(share(spread([*page.scores(method, score).values()])))
            gap = None if method == AGAINST else page.gap(method, AGAINST, score)
            more.append(points(gap))
        made.append([*row, *more])
    return made


def _costs(page: Page) -> list[list[str]]:
    """The table of `elsa compare`, with the simulated time of a run instead of that to a target."""
    titles, *rows = cost_table(page.results)
    made = [[titles[0], "simulated time", *titles[3:]]]
    for row, held in zip(rows, page.results.rows, strict=True):
        seconds = f"{held.simulated_seconds.mean:.0f} s" if held.simulated_seconds else "-"
        made.append([row[0], seconds, *row[3:]])
    return made


def _attacked(page: Page, clean: Page) -> list[list[str]]:
    """What the attack costs each method, and whom trust dropped."""
    made = [["method", "points to itself unpoisoned", "poisoned updates dropped", "honest ones"]]
    for method in page.methods:
        if method not in page.runs:
            continue
        gap = difference(page.scores(method, "accuracy"), clean.scores(method, "accuracy"))
        cut = [
            tuple(map(sum, zip(*(it.cut[who] for it in page.runs[method].values()), strict=True)))
            for who in ("poisoned", "honest")
        ]
        shown = [f"{100 * dropped / of:.0f} %" if of else "-" for dropped, of in cut]
        made.append([title_of(method), points(gap), *shown])
    return made

"""The study of clustering as tables, as JSON and as plots, of the cells that are there."""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clustering_cells import (
    GROUPS,
    KINDS,
    PARTITIONS,
    PARTS,
    RARE,
    RATES,
    RULES,
    SMALL,
    STRATEGIES,
    arms,
)
from clustering_plot import write_plots
from measured import machine
from sklearn.metrics import adjusted_rand_score, roc_auc_score

Result = Mapping[str, Any]
Results = Mapping[int, Result]
"""The cells of an arm by seed."""

OPENING = """# Clusters, trust and robust rules

    python benchmarks/clustering.py --out docs/results/clustering

Real MiniLM, real text, on one core. Runs are short: what each part changes in the quick start is in
`benchmarks/clustering_cells.py`. Thresholds of trust are the defaults, chosen on other seeds,
but after the rule before had failed at seed 0 (docs/clustering.md). Numbers are means over the
seeds, smallest to largest behind; "-" is not run yet.
`clustering.json` holds the rows, `cells` every run.
"""


def write_tables(out: Path) -> None:
    """Write clustering.json, README.md and plots.

    README.md ends with discussion.txt, where there is one.
    """
    cells = {(part, arm): _read(out / "cells" / part / arm) for part in PARTS for arm in arms(part)}
    tables = {
        "groups": [row for arm in arms("groups") for row in _groups(arm, cells["groups", arm])],
        "trust": [_trust(arm, cells["trust", arm]) for arm in arms("trust")],
        "attacks": [_attacks(rule, cells) for rule in RULES],
        "long": [_long(rule, cells) for rule in ("mean", "trust")],
        "edges": [_edges(it, cells) for it in PARTITIONS],
    }
    pages = [OPENING]
    for part, write in _PAGES.items():
        done = {seed for (of, _), found in cells.items() if of == part for seed in found}
        pages.append(write(tables[part], sorted(done)))
    discussion = out / "discussion.txt"
    if discussion.is_file():
        pages.append(discussion.read_text("utf-8"))
    content = {"machine": machine(), "tables": tables}
    out.mkdir(parents=True, exist_ok=True)
    (out / "clustering.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    write_plots(out, cells)
    (out / "README.md").write_text("\n".join(pages), encoding="utf-8")


def _read(folder: Path) -> dict[int, Result]:
    return {int(it.stem): json.loads(it.read_text("utf-8")) for it in sorted(folder.glob("*.json"))}


def _spread(values: Iterable[float | None]) -> list[float] | None:
    """Mean, smallest and largest; None of nothing."""
    kept = [it for it in values if it is not None]
    return [statistics.mean(kept), min(kept), max(kept)] if kept else None


def _text(spread: Sequence[float] | None, form: str = ".3f", times: float = 1.0) -> str:
    if spread is None:
        return "-"
    mean, low, high = (format(times * it, form) for it in spread)
    return mean if low == high else f"{mean} ({low} to {high})"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


# Are known groups found?


def _groups(arm: str, results: Results) -> list[dict[str, Any]]:
    rows = []
    for how in ("by_eigengap", "by_number"):
        found = [it[how] for it in results.values()]
        true = [
            [
                n % GROUPS if arm.startswith("skew") else n * GROUPS // len(it)
                for n in range(len(it))
            ]
            for it in found
        ]
        scores = [adjusted_rand_score(*pair) for pair in zip(true, found, strict=True)]
        counts = [len(set(it)) for it in found]
        rows.append({"groups": arm, "k": how, "rand": _spread(scores), "found": counts})
    return rows


def _groups_page(rows: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> str:
    what = {
        "task": "tasks: TREC, SMS, R8 | moves",
        "skew": "label skew on TREC | moves",
        "task-gaussian": "tasks: TREC, SMS, R8 | Gaussians",
        "skew-gaussian": "label skew on TREC | Gaussians",
    }
    how = {"by_eigengap": "by eigengap", "by_number": f"given: {GROUPS}"}
    lines = [
        f"| {what[row['groups']]} | {how[row['k']]} | {_text(row['rand'])} "
        f"| {', '.join(map(str, row['found'])) or '-'} |"
        for row in rows
    ]
    return _page(
        "30 devices of known groups",
        "Ten devices a group, one edge round of 10 steps of 8 rows, no shared labels among tasks. "
        "Under label skew, 80 % of a device's rows are of its group's own two classes. Moves "
        "are the default; Gaussians (`cluster.fingerprint`) are what the paper looks at.",
        seeds,
        [
            "devices grouped by",
            "seen as",
            "number of clusters",
            "adjusted Rand index",
            "clusters found",
        ],
        lines,
        "![Cluster maps](cluster-map.svg)",
    )


# Whom does trust tell apart?


def _trust(arm: str, results: Results) -> dict[str, Any]:
    first, last, cut = [], [], []
    honest: dict[str, list[float]] = {"ordinary": [], "small": [], "rare": []}
    for it in results.values():
        moments = sorted({(row[0], row[1]) for row in it["judged"]})
        devices = len(it["edges"])
        for moment in moments:
            rows = {int(row[2].split("-")[1]): row for row in it["judged"] if _at(row) == moment}
            bad = [number in it["poisoned"] for number in rows]
            for number, row in rows.items():
                dropped = float(row[6] == 0)
                if number in it["poisoned"]:
                    cut.append(dropped)
                else:
                    honest[_kind(number, devices)].append(dropped)
            if any(bad):
                score = roc_auc_score(bad, [1 - row[5] for row in rows.values()])
                if moment == moments[0]:
                    first.append(score)
                if moment == moments[-1]:
                    last.append(score)
    shares = {name: statistics.mean(it) if it else None for name, it in honest.items()}
    everybody = [it for each in honest.values() for it in each]
    return {
        "attack": arm,
        "auroc_first": _spread(first),
        "auroc_last": _spread(last),
        "attackers_cut": statistics.mean(cut) if cut else None,
        "honest_cut": statistics.mean(everybody) if everybody else None,
        **{f"{name}_cut": share for name, share in shares.items()},
    }


def _at(row: Sequence[Any]) -> tuple[int, int]:
    return row[0], row[1]


def _kind(number: int, devices: int) -> str:
    if number >= devices - RARE:
        return "rare"
    return "small" if number >= devices - RARE - SMALL else "ordinary"


def _trust_page(rows: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> str:
    lines = [
        f"| {row['attack'].rpartition('-')[0]} | {row['attack'].rpartition('-')[2]} "
        f"| {_text(row['auroc_first'])} | {_text(row['auroc_last'])} "
        f"| {_share(row['attackers_cut'])} | {_share(row['honest_cut'])} | "
        f"{_share(row['ordinary_cut'])} | {_share(row['small_cut'])} | {_share(row['rare_cut'])} |"
        for row in rows
        if row["honest_cut"] is not None
    ]
    return _page(
        "Who is trusted",
        f"20 devices, of which {RARE} hold the rarest class alone and {SMALL} hold 16 rows; the "
        "others Dirichlet 0.5. Two edge rounds of 10 steps of 16 rows. AUROC of trust after the "
        "first and the second; shares are of devices whose update was dropped, over both. "
        f"Attacks: {', '.join(KINDS)} at {', '.join(map(str, sorted(RATES)))} %.",
        seeds,
        [
            "attack",
            "% of devices",
            "AUROC, first",
            "AUROC, second",
            "attackers cut, %",
            "honest cut, %",
            "ordinary",
            "small",
            "rare",
        ],
        lines,
        "![Trust over edge rounds](trust.svg)",
    )


# What is accuracy worth under attack?


def _attacks(rule: str, cells: Mapping[tuple[str, str], Results]) -> dict[str, Any]:
    clean = cells["attacks", f"{rule}-none"]
    row: dict[str, Any] = {"rule": rule, "none": _spread(it["accuracy"] for it in clean.values())}
    for kind in KINDS:
        found = cells["attacks", f"{rule}-{kind}"]
        row[kind] = _spread(it["accuracy"] for it in found.values())
        both = sorted(set(found) & set(clean))
        row[f"{kind}_points"] = _spread(
            100 * (found[seed]["accuracy"] - clean[seed]["accuracy"]) for seed in both
        )
    return row


def _attacks_page(rows: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> str:
    lines = []
    for row in rows:
        attacked = " | ".join(
            f"{_text(row[kind])} | {_text(row[f'{kind}_points'], '+.1f')}" for kind in KINDS
        )
        lines.append(f"| {row['rule']} | {_text(row['none'])} | {attacked} |")
    head = ["rule", "clean"]
    for kind in KINDS:
        head += [kind, "points"]
    return _page(
        "Accuracy with 3 of 10 devices poisoned",
        "TREC, one edge, Dirichlet 1.0, 24 steps of 8 rows a device; points are against the same "
        "rule without an attack, seed by seed. f = 3 for Krum and multi-Krum, 0.3 for the trimmed "
        "mean.",
        seeds,
        head,
        lines,
        "![Accuracy under attack](attacks.svg)",
    )


# And when training goes on?


def _long(rule: str, cells: Mapping[tuple[str, str], Results]) -> dict[str, Any]:
    clean, found = (cells["long", f"{rule}-{kind}"] for kind in ("none", "sign-flip"))
    both = sorted(set(found) & set(clean))
    dropped: dict[bool, list[float]] = {False: [], True: []}
    for it in found.values():
        for row in it["judged"]:
            dropped[int(row[2].split("-")[1]) in it["poisoned"]].append(float(row[6] == 0))
    alone = [float(row[6] == 0) for it in clean.values() for row in it["judged"]]
    return {
        "rule": rule,
        "none": _spread(it["accuracy"] for it in clean.values()),
        "sign-flip": _spread(it["accuracy"] for it in found.values()),
        "points": _spread(100 * (found[it]["accuracy"] - clean[it]["accuracy"]) for it in both),
        "attackers_cut": statistics.mean(dropped[True]) if dropped[True] else None,
        "honest_cut": statistics.mean(dropped[False]) if dropped[False] else None,
        "honest_cut_clean": statistics.mean(alone) if alone else None,
    }


def _long_page(rows: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> str:
    lines = [
        f"| {row['rule']} | {_text(row['none'])} | {_text(row['sign-flip'])} "
        f"| {_text(row['points'], '+.1f')} | {_share(row['attackers_cut'])} "
        f"| {_share(row['honest_cut'])} | {_share(row['honest_cut_clean'])} |"
        for row in rows
    ]
    return _page(
        "The same, three times as long",
        "72 steps a device, 12 edge rounds; trust was mended after runs like these with seeds 1 "
        "and 2, so they have other seeds. Shares are of updates dropped.",
        seeds,
        [
            "rule",
            "clean",
            "sign-flip",
            "points",
            "attackers cut, %",
            "honest cut, %",
            "honest cut, clean, %",
        ],
        lines,
    )


# What is it worth to put similar devices together?


def _edges(layout: str, cells: Mapping[tuple[str, str], Results]) -> dict[str, Any]:
    target = cells["edges", f"{layout}-random"]
    row: dict[str, Any] = {"partition": layout}
    for strategy in STRATEGIES:
        found = cells["edges", f"{layout}-{strategy}"]
        row[strategy] = {
            "accuracy": _spread(it["accuracy"] for it in found.values()),
            "worst": _spread(it["accuracy_worst_device"] for it in found.values()),
            "rounds": _spread(
                _reached(it["curve"], 0.95 * target[seed]["accuracy"])
                for seed, it in found.items()
                if seed in target
            ),
        }
    return row


def _reached(curve: Sequence[Sequence[float]], target: float) -> float | None:
    return next((1.0 + round_ for round_, accuracy, *_ in curve if accuracy >= target), None)


def _edges_page(rows: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> str:
    lines = [
        f"| {row['partition']} | {strategy} | {_text(row[strategy]['accuracy'])} "
        f"| {_text(row[strategy]['worst'])} | {_text(row[strategy]['rounds'], '.1f')} |"
        for row in rows
        for strategy in STRATEGIES
    ]
    return _page(
        "Who shares an edge with whom",
        "TREC, 12 devices, 3 edges, 4 global rounds of 2 edge rounds of 3 steps. Rounds are those "
        "until 95 % of what the random assignment ends with, of the runs that reach it.",
        seeds,
        ["rows laid", "strategy", "accuracy", "worst device", "rounds to target"],
        lines,
        "![Accuracy over rounds](edges.svg)",
    )


def _page(
    title: str,
    text: str,
    seeds: Sequence[int],
    head: Sequence[str],
    lines: Sequence[str],
    plot: str = "",
) -> str:
    said = f"Seeds: {', '.join(map(str, seeds))}." if seeds else "Not run yet."
    table = [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines]
    return "\n".join(
        [
            f"## {title}",
            "",
            f"{text} {said}",
            "",
            *table,
            "",
            *([plot, ""] if seeds and plot else []),
        ]
    )


_PAGES: Mapping[str, Callable[[Any, Sequence[int]], str]] = {
    "groups": _groups_page,
    "trust": _trust_page,
    "attacks": _attacks_page,
    "long": _long_page,
    "edges": _edges_page,
}

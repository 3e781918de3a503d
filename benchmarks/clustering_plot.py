"""Plots of the study of clustering."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from behaviour_plot import COLOURS, MARKERS, STYLE, figure_of, map_panel, save, trust_panel
from clustering_cells import GROUPS, KINDS, PARTITIONS, RULES, STRATEGIES

from elsa.record.behaviour import ClusterMap, TrustHistory

Cells = Mapping[tuple[str, str], Mapping[int, Mapping[str, Any]]]


def write_plots(out: Path, cells: Cells) -> None:
    """Write those that there are cells for."""
    with mpl.rc_context(STYLE):
        _maps(out / "cluster-map.svg", cells)
        _trust(out / "trust.svg", cells)
        _attacks(out / "attacks.svg", cells)
        _edges(out / "edges.svg", cells)


def _maps(path: Path, cells: Cells) -> None:
    """The first seed of both kinds of groups: colour says the edge, marker the true group."""
    shown = {arm: cells["groups", arm] for arm in ("task", "skew") if cells["groups", arm]}
    if not shown:
        return
    figure, panels = figure_of(4.8 * len(shown), 4.4, len(shown))
    for axes, (arm, results) in zip(panels, shown.items(), strict=True):
        seed = min(results)
        result = results[seed]
        count = len(result["edges"])
        true = [n % GROUPS if arm == "skew" else n * GROUPS // count for n in range(count)]
        points = tuple((x, y) for x, y in result["plane"])
        names = tuple(map(str, range(count)))
        map_panel(axes, ClusterMap(0, names, points, tuple(true), tuple(result["edges"])))
        title = "tasks" if arm == "task" else "label skew"
        axes.set_title(f"groups by {title}, seed {seed}", loc="left", fontsize=10)
        legend = axes.get_legend()
        for text in legend.get_texts() if legend else ():
            text.set_text(text.get_text().replace("cluster", "true group"))
    save(figure, path)


def _trust(path: Path, cells: Cells) -> None:
    """Trust of every device over the edge rounds of the runs with trust, first seed."""
    shown = {kind: cells["attacks", f"trust-{kind}"] for kind in ("none", *KINDS)}
    shown = {kind: results for kind, results in shown.items() if results}
    if not shown:
        return
    figure, panels = figure_of(3.6 * len(shown), 3.6, len(shown))
    for axes, (kind, results) in zip(panels, shown.items(), strict=True):
        result = results[min(results)]
        moments = sorted({(row[0], row[1]) for row in result["judged"]})
        trust: dict[str, list[float | None]] = {}
        cut: dict[str, set[int]] = {}
        for row in result["judged"]:
            at = moments.index((row[0], row[1]))
            trust.setdefault(row[2], [None] * len(moments))[at] = row[5]
            if not row[6]:
                cut.setdefault(row[2], set()).add(at)
        history = TrustHistory(
            tuple(moments),
            {name: tuple(values) for name, values in trust.items()},
            {name: frozenset(cut.get(name, ())) for name in trust},
            frozenset(f"device-{number}" for number in result["poisoned"]),
        )
        trust_panel(axes, history)
        axes.set_title(f"{kind}, seed {min(results)}", loc="left", fontsize=10)
    save(figure, path)


def _attacks(path: Path, cells: Cells) -> None:
    """A row for each rule, a marker for each attack, a dot for each seed."""
    kinds = ("none", *KINDS)
    if not any(cells["attacks", f"{rule}-{kind}"] for rule in RULES for kind in kinds):
        return
    figure, (axes,) = figure_of(7.2, 4.0)
    for place, kind in enumerate(kinds):
        points = [
            (result["accuracy"], -number - 0.18 * (place - 1.5))
            for number, rule in enumerate(RULES)
            for result in cells["attacks", f"{rule}-{kind}"].values()
        ]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                ls="",
                marker=MARKERS[place],
                color=COLOURS[-1] if kind == "none" else COLOURS[place - 1],
                ms=5,
                alpha=0.8,
                label="no attack" if kind == "none" else kind,
            )
    axes.set_yticks([-number for number in range(len(RULES))], list(RULES))
    axes.set_xlabel("test accuracy with 3 of 10 devices poisoned, a point a seed")
    axes.grid(visible=True, axis="x", color="#eeeeee", lw=0.6)
    axes.legend(frameon=False, fontsize=8, loc="best")
    save(figure, path)


def _edges(path: Path, cells: Cells) -> None:
    """Accuracy over rounds, a panel for each way rows are laid."""
    if not any(cells["edges", f"{it}-{how}"] for it in PARTITIONS for how in STRATEGIES):
        return
    figure, panels = figure_of(10.5, 3.6, len(PARTITIONS))
    for axes, layout in zip(panels, PARTITIONS, strict=True):
        for number, how in enumerate(STRATEGIES):
            for seed, result in sorted(cells["edges", f"{layout}-{how}"].items()):
                rounds, accuracies = zip(*(point[:2] for point in result["curve"]), strict=True)
                axes.plot(
                    [1 + it for it in rounds],
                    accuracies,
                    color=COLOURS[number],
                    lw=1,
                    marker=MARKERS[number],
                    ms=3,
                    alpha=0.8,
                    label=how if seed == min(cells["edges", f"{layout}-{how}"]) else None,
                )
        axes.set_title(layout, loc="left", fontsize=10)
        axes.set_xlabel("global rounds")
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    panels[0].set_ylabel("test accuracy")
    if panels[0].get_legend_handles_labels()[0]:
        panels[0].legend(frameon=False, fontsize=8)
    save(figure, path)

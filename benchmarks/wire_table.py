"""The cells of the wire study as JSON, as tables for people, and as plots."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measured import machine, write_json
from wire_arms import ARMS, DATASETS, EXACT, TITLES, Arm
from wire_plot import Point, draw

HOPS = ("device_to_edge", "edge_to_device", "edge_to_cloud", "cloud_to_edge")
PADDED = "uncompressed_padded_float32"
Seeds = Mapping[int, Mapping[str, Any]]
"""The cells of an arm by seed."""


def write_tables(out: Path, extra: Sequence[str] = ()) -> None:
    """Write wire.json, README.md and a plot a data set from the cells that are there.

    README.md ends with discussion.txt, where there is one.
    """
    cells = {
        (dataset, arm): _read(out / "cells" / dataset / arm.slug)
        for dataset in DATASETS
        for arm in ARMS
    }
    path = out / "failed.json"
    failed: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    rows = [
        _row(dataset, arm, seeds, cells[dataset, EXACT], failed)
        for (dataset, arm), seeds in cells.items()
        if seeds or any(name.startswith(f"{dataset}/{arm.slug}/") for name in failed)
    ]
    used = sorted({seed for seeds in cells.values() for seed in seeds})
    command = " ".join(["python benchmarks/wire.py --out", str(out), *_sets(extra)])
    if used and used != [0, 1, 2]:
        command += f" --seeds {' '.join(map(str, used))}"
    content = {"command": command, "machine": machine(), "seeds": used, "rows": rows}
    write_json(out / "wire.json", content)
    pages = [_opening(command, used)]
    for dataset in DATASETS:
        own = [row for row in rows if row["dataset"] == dataset]
        done = [row for row in own if row["seeds"]]
        if own:
            pages.append(_page(dataset, own, plot=bool(done)))
        if done:
            _plot(out / f"{dataset}.svg", dataset, done)
    discussion = out / "discussion.txt"
    if discussion.is_file():
        pages.append(discussion.read_text("utf-8"))
    (out / "README.md").write_text("\n".join(pages), encoding="utf-8")


def _read(folder: Path) -> dict[int, dict[str, Any]]:
    return {int(it.stem): json.loads(it.read_text("utf-8")) for it in folder.glob("*.json")}


def _row(
    dataset: str, arm: Arm, seeds: Seeds, exact: Seeds, failed: Mapping[str, Any]
) -> dict[str, Any]:
    """An arm on a data set; numbers are None where no seed gives them."""
    accuracies = [cell["accuracy"] for cell in seeds.values()]
    worst = [cell["accuracy_worst_device"] for cell in seeds.values()]
    totals = [sum(cell["bytes"][hop] for hop in HOPS) for cell in seeds.values()]
    shared = sorted(set(seeds) & set(exact))
    points = [100 * (seeds[seed]["accuracy"] - exact[seed]["accuracy"]) for seed in shared]
    # What trains without a split has no padded exchange of its own: that of the exact split.
    base = seeds if arm.kind == "split" else {seed: exact[seed] for seed in shared}
    padded = [cell["bytes"][PADDED] for cell in base.values()]
    total, whole = _mean(totals), _mean(padded)
    prefix = f"{dataset}/{arm.slug}/"
    reasons = [it["error"] for name, it in failed.items() if name.startswith(prefix)]
    return {
        "dataset": dataset,
        "arm": arm.name,
        "slug": arm.slug,
        "family": arm.family,
        "settings": arm.settings,
        "seeds": len(seeds),
        "accuracy": _mean(accuracies),
        "accuracy_smallest": min(accuracies, default=None),
        "accuracy_largest": max(accuracies, default=None),
        "accuracy_worst_device": _mean([it for it in worst if it is not None]),
        "points_to_exact": _mean(points),
        "points_to_exact_by_seed": dict(zip(shared, points, strict=True)),
        "megabytes": None if total is None else total / 1e6,
        "padded_megabytes": None if whole is None else whole / 1e6,
        "percent_of_padded": 100 * total / whole if total and whole else None,
        "lost_device_rounds": sum(cell["lost_device_rounds"] for cell in seeds.values()),
        "failed": len(reasons),
        "error": reasons[0] if reasons else None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return statistics.mean(values) if values else None


def _sets(extra: Sequence[str]) -> list[str]:
    return [f"--set {setting}" for setting in extra]


def _opening(command: str, seeds: Sequence[int]) -> str:
    return f"""# Accuracy against bytes

    {command}

The quick start with 10 devices, 2 edges and labels spread by a Dirichlet distribution of 0.5; what
each data set and each arm changes is in `benchmarks/wire_arms.py`. Test accuracy after the last
round: mean (smallest to largest) of seeds {", ".join(map(str, seeds)) or "none"}. Points are
against the exact wire, seed by seed. Bytes are those of a whole run, all messages between devices,
edges and cloud, evaluation left out; per cent is of the same exchange as padded float32, or, for
what trains without a split, of that of the exact split. `wire.json` holds the table, `cells` every
run.
"""


def _page(dataset: str, rows: Sequence[Mapping[str, Any]], *, plot: bool) -> str:
    lines = [f"## {TITLES[dataset]}", ""]
    if plot:
        lines += [f"![Accuracy against bytes, {TITLES[dataset]}]({dataset}.svg)", ""]
    lines += [
        "| arm | accuracy | points | worst device | MB | % of padded | seeds | remark |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [" | ".join(_cells(row)) for row in rows]
    return "\n".join([*lines, ""])


def _cells(row: Mapping[str, Any]) -> list[str]:
    remarks = []
    if row["failed"]:
        remarks.append(f"{row['failed']} failed: {str(row['error']).replace('|', '/')}")
    if row["lost_device_rounds"]:
        remarks.append(f"devices lost {row['lost_device_rounds']} times")
    spread = ""
    if row["seeds"]:
        spread = f" ({row['accuracy_smallest']:.3f} to {row['accuracy_largest']:.3f})"
    megabytes = row["megabytes"]
    return [
        f"| {row['arm']}",
        _text(row["accuracy"], ".4f") + spread,
        _text(row["points_to_exact"], "+.2f"),
        _text(row["accuracy_worst_device"], ".3f"),
        _text(megabytes, ",.0f" if megabytes and megabytes >= 100 else ".1f"),
        _text(row["percent_of_padded"], ".2f"),
        str(row["seeds"]),
        f"{'; '.join(remarks)} |",
    ]


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _plot(path: Path, dataset: str, rows: Sequence[Mapping[str, Any]]) -> None:
    points = [
        Point(
            row["arm"],
            row["family"],
            row["megabytes"],
            row["accuracy"],
            row["accuracy_smallest"],
            row["accuracy_largest"],
        )
        for row in rows
    ]
    across = [arm.name for arm in ARMS if arm == EXACT or arm.kind != "split"]
    padded = next((it["padded_megabytes"] for it in rows if it["arm"] == EXACT.name), None)
    counts = {row["seeds"] for row in rows}
    several = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(min(counts))
    of = "one seed" if several == "1" else f"mean of {several} seeds, bars from smallest to largest"
    title = f"{TITLES[dataset]}: {of}"
    draw(path, title, points, across, padded)

"""Draws how devices of a run behaved: the cluster map, coloured by edge, and trust over rounds.

    python benchmarks/behaviour_plot.py RUN            # writes RUN/cluster-map.svg, RUN/trust.svg
    python benchmarks/behaviour_plot.py RUN --out DIR

RUN is a run directory; what it lacks (no clustering, nobody judged) is not drawn.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from elsa.errors import ElsaError
from elsa.record.behaviour import ClusterMap, TrustHistory, read_cluster_maps, read_trust

COLOURS = ("#0060a0", "#c44a00", "#007a5a", "#b0538f", "#8a7d00", "#2a9fd6", "#6e6e6e", "#000000")
MARKERS = "os^Dv*PX"
STYLE: Any = {"svg.hashsalt": "elsa", "font.size": 9, "font.family": "DejaVu Sans"}


def figure_of(width: float, height: float, panels: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """An empty figure with so many panels side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def save(figure: Figure, path: Path) -> None:
    """Write it as SVG; the same figure, the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, facecolor="white")


def draw_map(path: Path, maps: Sequence[ClusterMap], title: str = "") -> None:
    """A panel for each map: colour says the edge, marker the cluster."""
    with mpl.rc_context(STYLE):
        figure, panels = figure_of(4.6 * len(maps), 4.4, len(maps))
        for axes, each in zip(panels, maps, strict=True):
            map_panel(axes, each)
        panels[0].set_title(title or f"after round {maps[0].round}", loc="left", fontsize=10)
        save(figure, path)


def map_panel(axes: Axes, shown: ClusterMap) -> None:
    """Draw one map."""
    axes.set_title(f"after round {shown.round}", loc="left", fontsize=10)
    axes.set_xlabel("alike devices are near each other")
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    edges = sorted(set(shown.edges))
    for edge in edges:
        for cluster in sorted(set(shown.clusters)):
            own = [
                point
                for point, at, of in zip(shown.points, shown.edges, shown.clusters, strict=True)
                if (at, of) == (edge, cluster)
            ]
            if own:
                axes.plot(
                    *zip(*own, strict=True),
                    ls="",
                    marker=MARKERS[cluster % len(MARKERS)],
                    color=COLOURS[edges.index(edge) % len(COLOURS)],
                    alpha=0.8,
                    label=f"{edge or 'no edge'}, cluster {cluster}",
                )
    axes.legend(frameon=False, fontsize=7, loc="best")


def draw_trust(path: Path, history: TrustHistory, title: str = "") -> None:
    """A line for each device; crosses where its update was dropped."""
    with mpl.rc_context(STYLE):
        figure, (axes,) = figure_of(7.2, 3.8)
        trust_panel(axes, history)
        axes.set_title(title or "trust over edge rounds", loc="left", fontsize=10)
        save(figure, path)


def trust_panel(axes: Axes, history: TrustHistory) -> None:
    """Draw one history."""
    labelled = set()
    for name, values in history.trust.items():
        evil = name in history.poisoned
        label = "poisoned" if evil else "honest"
        shown = [(at, it) for at, it in enumerate(values) if it is not None]
        axes.plot(
            *zip(*shown, strict=True),
            color=COLOURS[1] if evil else COLOURS[0],
            ls="--" if evil else "-",
            lw=1,
            alpha=0.7,
            marker=".",
            label=None if label in labelled else label,
        )
        labelled.add(label)
        dropped = [(at, it) for at, it in shown if at in history.cut[name]]
        if dropped:
            again = "dropped" in labelled
            axes.plot(
                *zip(*dropped, strict=True),
                ls="",
                marker="x",
                color="#000000",
                ms=5,
                label=None if again else "dropped",
            )
            labelled.add("dropped")
    axes.set_xticks(range(len(history.moments)), [f"{it[0]}.{it[1]}" for it in history.moments])
    axes.set_xlabel("global round . edge round")
    axes.set_ylabel("trust")
    axes.set_ylim(-0.04, 1.04)
    axes.legend(frameon=False, fontsize=8, loc="center right")


def main() -> None:
    """Draw what the run has."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, help="folder; the run directory")
    options = parser.parse_args()
    out = options.out or options.run
    try:
        maps, history = read_cluster_maps(options.run), read_trust(options.run)
    except ElsaError as error:
        sys.exit(str(error))
    if maps:
        draw_map(out / "cluster-map.svg", maps)
    if history.trust:
        draw_trust(out / "trust.svg", history)
    drawn = [name for name, has in (("cluster-map.svg", maps), ("trust.svg", history.trust)) if has]
    sys.stdout.write(f"{out}: {', '.join(drawn) or 'nothing was clustered, nobody judged'}\n")


if __name__ == "__main__":
    main()

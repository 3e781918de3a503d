"""What a finished run shows at its end: a short table, and where everything lies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from elsa.cli.stopping import say
from elsa.errors import RunError
from elsa.report.numbers import duration, size
from elsa.report.page import NAME, write_report


def show(directory: Path, summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a run's summary and the paths of what it wrote on standard output."""
    console = console or Console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _rows(summary):
        table.add_row(name, value)
    console.print(table)
    written = [("run", directory), ("adapter", directory / "adapter")]
    if (page := directory / NAME).is_file():
        written.append(("report", page))
    for what, path in written:
        line = f"{what:7}  {path}"
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)


def report(directory: Path) -> None:
    """Write the page of a run that ended; if it cannot be written, say so: the run is whole."""
    try:
        write_report([directory])
    except RunError as error:
        say(f"no report: {error}")


def _rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    shares = (
        ("accuracy", "test accuracy"),
        ("accuracy_mean_device", "  mean over devices"),
        ("accuracy_worst_device", "  worst device"),
    )
    rows = [(title, f"{summary[key]:.3f}") for key, title in shares if key in summary]
    tasks = summary.get("tasks", {})
    rows[1:1] = [(f"  {task}", f"{accuracy:.3f}") for task, accuracy in tasks.items()]
    if "perplexity" in summary:
        rows.append(("test perplexity", f"{summary['perplexity']:.2f}"))
    if "answers" in summary:
        rows.append(("answers wholly right", f"{summary['answers']:.3f}"))
    if summary["loss"] is not None:  # real machines hold no common test rows
        rows.append(("test loss", f"{summary['loss']:.3f}"))
    for unit, epsilon in summary.get("epsilon", {}).items():
        rows.append((f"epsilon a {unit}", f"{epsilon:.3g} at delta {summary['delta']:g}"))
    rows += [
        ("samples trained on", f"{summary['samples']:,}"),
        ("wall time", duration(summary["wall_seconds"])),
        ("samples a second", f"{summary['samples_per_second']:.0f}"),
    ]
    if summary["simulated_seconds"]:
        rows.append(("simulated time", duration(summary["simulated_seconds"])))
    passed = (
        ("device_to_edge", "device to edge"),
        ("edge_to_device", "edge to device"),
        ("edge_to_cloud", "edge to cloud"),
        ("cloud_to_edge", "cloud to edge"),
        ("uncompressed_padded_float32", "as padded float32"),
    )
    bytes_ = summary["bytes"]
    rows += [(title, size(bytes_[hop])) for hop, title in passed if bytes_[hop]]
    rows.append(("peak memory", size(summary["peak_rss_bytes"])))
    return rows

"""What `elsa plan` prints: a row a device, totals by tier, who cannot take part."""

import json

from rich.console import Console
from rich.table import Table

from elsa.engine.plan import DevicePlan, Plan
from elsa.report.numbers import duration, size


def to_json(plan: Plan) -> str:
    """The plan as JSON text."""
    return json.dumps(plan.to_dict(), indent=1) + "\n"


def show(plan: Plan, console: Console | None = None) -> None:
    """Print a plan on standard output."""
    console = console or Console()
    titles = ("device", "edge", "p/o/q", "memory", "of", "GFLOP", "up", "down", "a step", "a round")
    table = Table(*titles, "why", box=None, pad_edge=False)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for row in plan.devices:
        table.add_row(*_cells(row))
    console.print(table)
    console.print()
    console.print(_totals(plan))
    left = [row.device for row in plan.devices if not row.fits]
    if left:
        names = ", ".join(left)
        console.print(f"{len(left)} of {len(plan.devices)} devices cannot take part: {names}")
    seconds = duration(plan.seconds)
    console.print(
        f"a global round takes {seconds} of simulated time when all devices take part in it; "
        "GFLOP, up and down are of a local step, a round is a device's own with its waiting"
    )


def _cells(row: DevicePlan) -> list[str]:
    limit = "" if row.memory_limit is None else size(row.memory_limit)
    split = f"{row.bottom}/{row.trunk}/{row.top}"
    if not row.fits:
        return [row.device, row.edge, split, size(row.memory), limit, *[""] * 5, row.why]
    return [
        row.device,
        row.edge,
        split,
        size(row.memory),
        limit,
        f"{row.flops / 1e9:.2f}",
        size(row.up),
        size(row.down),
        duration(row.seconds),
        duration(row.round_seconds),
        row.why,
    ]


def _totals(plan: Plan) -> Table:
    table = Table("a global round", "TFLOP", "up", "down", "busy", "time", box=None, pad_edge=False)
    totals = plan.totals()
    devices = totals["devices"]
    table.add_row(
        f"{sum(row.fits for row in plan.devices)} devices",
        f"{devices['flops'] / 1e12:.3f}",
        size(devices["up"]),
        size(devices["down"]),
        "",
        duration(max((row.round_seconds for row in plan.devices), default=0.0)),
    )
    for edge in plan.edges:
        table.add_row(
            f"{edge.edge}, {edge.devices} devices",
            f"{edge.flops / 1e12:.3f}",
            size(edge.up),
            size(edge.down),
            f"{edge.busy:.0%}",
            duration(edge.seconds),
        )
    return table

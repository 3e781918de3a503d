"""The files of a comparison: JSON with everything, CSV with a line a run, Markdown, SVG."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elsa.compare.results import Results
from elsa.compare.table import accuracy_table, cost_table, markdown, remarks, to_csv
from elsa.record.atomic import write_atomically


def write_results(
    out: Path, results: Results, facts: Mapping[str, Any], command: str
) -> list[Path]:
    """Write them all below `out`; return the files, those for people first.

    Raises:
        RunError: one cannot be written.
    """
    # Imported late: tables need no plots.
    from elsa.compare.plots import draw_accuracy, draw_curves

    content = {"command": command, **facts, **results.to_dict()}
    text = "\n".join(
        [
            f"    {command}\n",
            markdown(accuracy_table(results)),
            markdown(cost_table(results)),
            *(f"- {line}" for line in remarks(results)),
        ]
    )
    files = {
        "compare.md": text.rstrip() + "\n",
        "compare.csv": to_csv(results),
        "compare.json": json.dumps(content, indent=1) + "\n",
    }
    for name, held in files.items():
        write_atomically(out / name, held.encode())
    draw_curves(out / "curves.svg", results)
    draw_accuracy(out / "accuracy.svg", results)
    return [out / name for name in (*files, "curves.svg", "accuracy.svg")]

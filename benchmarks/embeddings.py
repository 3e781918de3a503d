"""What do embeddings held in few bits cost in accuracy, and what do they save?

Scores SmolLM2 as it is, in float32, on the held-out answers of the preset, with its tied embedding
and output matrix in float32, bfloat16 and int8. Prints a table, writes JSON.

    python benchmarks/embeddings.py --out docs/results/embeddings.json
"""

import argparse
from pathlib import Path
from typing import Any

from measured import machine, print_table, write_json

from elsa.config.load import load_config
from elsa.engine.build import build_federation, open_sources, tester_of
from elsa.engine.machine import prepare
from elsa.engine.simulate import Simulation


def measure(store: str, rows: int) -> dict[str, Any]:
    """Scores with the embeddings held in `store`, and bytes of the matrix."""
    settings = [
        f"model.embeddings={store}",
        "model.precision=float32",
        f"data.limit={rows}",
        "data.test_fraction=0.75",
        "partition.min_rows=1",
        "run.threads=1",
    ]
    config = load_config("smollm2", settings)
    prepare(1)
    federation = build_federation(config, open_sources(config))
    bottom = next(iter(federation.devices.values())).segments.bottom
    held = {name: it.nbytes for name, it in bottom.frozen().items() if "embed" in name}
    tally = Simulation(federation).evaluate()[tester_of("")]
    return {
        "embeddings": "float32" if store == "auto" else store,
        "megabytes": sum(held.values()) / 1e6,
        "answers": tally.texts,
        "tokens": tally.items,
        "loss": tally.mean_loss,
        "accuracy": tally.accuracy,
    }


def main() -> None:
    """Measure each way to hold them, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=int, default=128)
    options = parser.parse_args()
    rows = [measure(store, options.rows) for store in ("auto", "bfloat16", "int8")]
    print_table(rows)
    if options.out:
        write_json(options.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()

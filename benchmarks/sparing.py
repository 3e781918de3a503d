"""What does it cost a device in time to hold little?

`elsa device` keeps one compiled kernel rather than 128 and has the C library return memory at once
(`engine/machine.py`). The same device, with random states in place of its edge's, takes the local
steps of an epoch both ways, in processes of their own that take turns; processor time of its own
work in a step, median of steps from the second epoch on. Prints a table, writes JSON.

    python benchmarks/sparing.py --out docs/results/sparing.json
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

from device_memory import MODELS, own_environment, settings, write_rows
from device_sum import opened
from measured import machine, print_table, write_json
from plan import Stand

from elsa.config.load import load_config
from elsa.engine.machine import prepare
from elsa.roles.exchange import Ahead, Due
from elsa.wire.messages import Activations, Message

STEPS = 8
"""Two epochs."""
WAYS = ("as it comes", "sparing")


def child(model: str, rows: Path, way: str) -> None:
    """Print the processor milliseconds of a step."""
    prepare(1, sparing=way == "sparing")
    case = {"model": model, "bottom": 1, "top": 1, "precision": "bfloat16"}
    config = load_config(None, settings(case | {"micro_batch": 0, "embeddings": "auto"}, rows))
    device, parts = opened(config, rows)
    stand, exchange = Stand(parts, device.segments.split, STEPS), device.train(0, 0)
    own, found = 0.0, []
    answer: Message | None = None
    while True:
        began = process_time()
        try:
            request = next(exchange) if answer is None else exchange.send(answer)
        except StopIteration:
            break
        own += process_time() - began
        assert not isinstance(request, Ahead | Due)  # one micro-batch in flight
        if isinstance(request, Activations):  # what came before it ends the step before
            found.append(own)
            own = 0.0
        answer = stand.answer(request)
    print(json.dumps(1e3 * statistics.median(found[1 + STEPS // 2 :])))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        model, rows, way = options.child
        child(model, Path(rows), way)
        return
    table: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            rows = Path(folder) / f"{model}.csv"
            write_rows({"model": model}, rows)
            found: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(options.turns):
                for way in WAYS:
                    command = [sys.executable, __file__, "--child", model, str(rows), way]
                    done = subprocess.run(
                        command, env=own_environment(), capture_output=True, text=True, check=True
                    )
                    found[way].append(float(done.stdout.splitlines()[-1]))
            ratios = [s / p for p, s in zip(found[WAYS[0]], found[WAYS[1]], strict=True)]
            table.append(
                {
                    "model": model,
                    **{f"{way}, ms": statistics.median(each) for way, each in found.items()},
                    "ratio": statistics.median(ratios),
                    "ratio_min": min(ratios),
                    "ratio_max": max(ratios),
                }
            )
            print_table(table)
    if options.out:
        write_json(options.out, {"machine": machine(), "turns": options.turns, "rows": table})


if __name__ == "__main__":
    main()

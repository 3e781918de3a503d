"""Do pairs of texts on an encoder, and classes on a decoder, train over the split?

Short runs on real text: BoolQ (question and passage: yes or no) with MiniLM, and TREC's six kinds
of questions with SmolLM2, in bfloat16, two devices. Loss and accuracy on common test rows before
and after, beside the share of the largest class; and for BoolQ the same without the passages.
Seeds that are in the file already are not run again. Prints a table, writes JSON.

    python benchmarks/kinds.py --seeds 0 1 --out docs/results/kinds.json
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measured import machine, print_table, write_json

from elsa.config.load import load_config
from elsa.engine.build import Sources, build_federation, open_sources, tester_of
from elsa.engine.machine import prepare
from elsa.engine.parts import Text
from elsa.engine.scores import evaluated
from elsa.engine.simulate import Simulation
from elsa.record.events import Evaluated

COMMON = (
    "run.threads=1",
    "model.precision=bfloat16",
    "wire.preset=exact",
    "federation.devices=2",
    "federation.edges=1",
    "federation.edge_rounds=1",
    "partition.kind=iid",
    "data.holdout_fraction=0",
    "train.batch_size=8",
)
PAIRS = (
    "model.path=minilm",
    "data.path=boolq",
    "data.limit=320",
    "model.max_tokens=96",
    "federation.rounds=1",
    "federation.local_steps=14",
    "train.learning_rate=2e-3",
)
DECODER = (
    "model.path=smollm2",
    "data.path=trec",
    "data.limit=300",
    "model.max_tokens=32",
    "federation.rounds=1",
    "federation.local_steps=14",
    "train.learning_rate=1e-3",
)
CASES: dict[str, tuple[str, ...]] = {
    "SmolLM2, TREC": DECODER,
    "MiniLM, BoolQ pairs": PAIRS,
    "MiniLM, BoolQ questions alone": PAIRS,
}


def measure(name: str, seed: int) -> dict[str, Any]:
    """One run: scores before and after."""
    config = load_config(None, [*COMMON, *CASES[name], f"run.seed={seed}"])
    prepare(config.run.threads)
    sources = open_sources(config)
    if name.endswith("alone"):
        sources = without_pairs(sources)
    simulation = Simulation(build_federation(config, sources))

    def scores() -> Evaluated:
        return evaluated(0, simulation.evaluate(), {"": tester_of("")}, causal=False)[1]

    before, samples = scores(), 0
    for _ in range(config.federation.rounds):
        samples += sum(report.samples for report in simulation.train_round())
    after, labels = scores(), sources.text.test.label
    assert labels is not None
    return {
        "case": name,
        "seed": seed,
        "samples": samples,
        "test_rows": len(labels),
        "largest_class": float(np.bincount(labels).max() / len(labels)),
        "accuracy_before": before.accuracy,
        "accuracy_after": after.accuracy,
        "loss_before": before.loss,
        "loss_after": after.loss,
    }


def without_pairs(sources: Sources) -> Sources:
    """The first text of each pair alone."""
    (task,) = sources.tasks
    text = Text(replace(task.text.train, pair=None), replace(task.text.test, pair=None))
    return replace(sources, tasks=(replace(task, text=text),))


def main() -> None:
    """Measure what is missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if options.out and options.out.is_file():
        rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"]
    for seed in options.seeds:
        for name in CASES:
            if (name, seed) not in [(row["case"], row["seed"]) for row in rows]:
                rows.append(measure(name, seed))
                print_table(rows)
                if options.out:
                    settings = {"common": COMMON, "pairs": PAIRS, "decoder": DECODER}
                    write_json(options.out, {"machine": machine(), **settings, "rows": rows})


if __name__ == "__main__":
    main()

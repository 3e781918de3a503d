"""Does the preset `smollm2` lower the loss on held-out answers, and how sure is that?

Evaluates the model as it is, trains the preset, evaluates again, for each seed: another draw and
split of the public rows, another order, other adapters. Perplexity and accuracy are of the tokens
of held-out answers; `answers` is the share that greedy decoding would give word for word. Seeds
already in the file are not run again. Prints a table, writes JSON.

    python benchmarks/language.py --seeds 0 1 2 --out docs/results/smollm2.json
"""

import argparse
import json
from pathlib import Path
from time import perf_counter
from typing import Any

from measured import machine, print_table, write_json

from elsa.config.load import load_config
from elsa.engine.build import build_federation, open_sources, tester_of
from elsa.engine.machine import prepare
from elsa.engine.scores import evaluated
from elsa.engine.simulate import Simulation
from elsa.record.events import Evaluated


def measure(seed: int, settings: list[str]) -> dict[str, Any]:
    """One seed: scores before and after, samples, seconds of training."""
    config = load_config("smollm2", [*settings, f"run.seed={seed}"])
    prepare(config.run.threads)
    simulation = Simulation(build_federation(config, open_sources(config)))

    def scores() -> Evaluated:
        testers = {"": tester_of("")}
        return evaluated(0, simulation.evaluate(), testers, causal=True, answers=True)[1]

    before, began, samples = scores(), perf_counter(), 0
    for _ in range(config.federation.rounds):
        samples += sum(report.samples for report in simulation.train_round())
    seconds, after = perf_counter() - began, scores()
    return {
        "seed": seed,
        "loss_before": before.loss,
        "loss_after": after.loss,
        "perplexity_before": before.perplexity,
        "perplexity_after": after.perplexity,
        "accuracy_before": before.accuracy,
        "accuracy_after": after.accuracy,
        "answers_before": before.answers,
        "answers_after": after.answers,
        "samples": samples,
        "training_seconds": seconds,
    }


def main() -> None:
    """Measure the seeds that are missing, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="settings", action="append", default=[])
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if options.out and options.out.is_file():
        rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"]
    for seed in options.seeds:
        if seed not in [row["seed"] for row in rows]:
            rows = [*rows, measure(seed, options.settings)]
            if options.out:
                content = {"machine": machine(), "settings": options.settings, "rows": rows}
                write_json(options.out, content)
    print_table(rows)


if __name__ == "__main__":
    main()

"""How long does the quick start take, and how near does it come to centralised PEFT?

For each seed: the quick start as it ships, and the same unsplit model trained in one place with the
same rows, as many samples, batch size and optimizer. Both have their learning rate chosen from the
same grid on a seed that is not reported (`--tune`). Prints a table, writes JSON.

    python benchmarks/centralised.py --out docs/results/quickstart.json
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from measured import machine, print_table, write_json

from elsa import run
from elsa.config.load import load_config
from elsa.config.schema import Config
from elsa.core.score import Tally, tally
from elsa.data.batches import BatchStream, eval_batches
from elsa.engine.build import open_sources
from elsa.engine.machine import prepare
from elsa.engine.parts import encode
from elsa.model.segments import build_whole, initial_adapters
from elsa.roles.learner import Learner, OptimizerSettings

GRID = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
CENTRALISED_RATE = 5e-4
"""Best of GRID on seed 100, as the quick start has its own; docs/results/quickstart-tuning.json."""
SAMPLES = 31_000
"""About what the quick start trains on; only for tuning."""


def federated(config: Config) -> dict[str, Any]:
    """The summary of a run."""
    with tempfile.TemporaryDirectory() as folder:
        return dict(run(config, out=Path(folder) / "run").summary)


def centralised(config: Config, samples: int) -> dict[str, Any]:
    """The unsplit model, all training rows in one place, trained on so many samples."""
    prepare(config.run.threads)
    sources = open_sources(config)
    model, seed = sources.model, config.run.seed
    whole = build_whole(model.checkpoint, model.task, model.lora)
    train = encode(sources.text.train, sources.tokenizer, config)
    test = encode(sources.text.test, sources.tokenizer, config)
    pad = sources.tokenizer.pad_id
    stream = BatchStream(train, config.train.batch_size, seed, config.train.bucketing, pad)
    settings = OptimizerSettings(config.train.learning_rate, config.train.weight_decay, True)
    learner = Learner(initial_adapters(model.checkpoint, model.task, model.lora, seed), settings)
    whole.bind(learner.parameters)
    done, began = 0, perf_counter()
    while done < samples:
        batch = next(stream)
        logits = whole(batch.input_ids, batch.mask, batch.token_types)
        torch.autograd.backward(whole.loss(logits, batch.labels))
        learner.step()
        done += len(batch.lengths)
    seconds, total = perf_counter() - began, Tally()
    with torch.no_grad():
        for batch in eval_batches(test, config.evaluate.batch_size, pad):
            total += tally(whole(batch.input_ids, batch.mask, batch.token_types), batch.labels)
    return {"accuracy": total.accuracy, "samples": done, "samples_per_second": done / seconds}


def tune(seed: int, arm: str, rates: list[float], threads: int) -> list[dict[str, Any]]:
    """Accuracy of an arm for every learning rate, at the quick start's number of samples."""
    rows = []
    for rate in rates:
        overrides = [
            f"run.seed={seed}",
            f"run.threads={threads}",
            f"train.learning_rate={rate}",
            "evaluate.every=100",
        ]
        config = load_config(None, overrides)
        result = federated(config) if arm == "elsa" else centralised(config, SAMPLES)
        rows.append({"seed": seed, "arm": arm, "rate": rate, "accuracy": result["accuracy"]})
        print_table(rows[-1:])
    return rows


def compare(seeds: list[int], threads: int) -> list[dict[str, Any]]:
    """Both at their own best learning rate, seed by seed."""
    rows = []
    for seed in seeds:
        own = [f"run.seed={seed}", f"run.threads={threads}"]
        ours = federated(load_config(None, own))
        config = load_config(None, [*own, f"train.learning_rate={CENTRALISED_RATE}"])
        theirs = centralised(config, ours["samples"])
        rows.append(
            {
                "seed": seed,
                "wall_seconds": ours["wall_seconds"],
                "samples": ours["samples"],
                "elsa": ours["accuracy"],
                "worst_device": ours["accuracy_worst_device"],
                "centralised": theirs["accuracy"],
                "difference_points": 100 * (ours["accuracy"] - theirs["accuracy"]),
            }
        )
        print_table(rows[-1:])
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tune", choices=("elsa", "centralised"), help="try learning rates")
    parser.add_argument("--tuning-seed", type=int, default=100)
    parser.add_argument("--rates", type=float, nargs="+", default=list(GRID))
    parser.add_argument("--threads", type=int, default=0, help="of each run; 0 takes all cores")
    options = parser.parse_args()
    if options.tune is None:
        rows = compare(options.seeds, options.threads)
    else:
        rows = tune(options.tuning_seed, options.tune, options.rates, options.threads)
    print_table(rows)
    content: dict[str, Any] = {"machine": machine(), "rows": rows}
    if options.tune is None:
        gaps = [row["difference_points"] for row in rows]
        content["difference_points"] = {
            "mean": statistics.mean(gaps),
            "spread": statistics.stdev(gaps) if len(gaps) > 1 else None,
        }
    if options.out:
        write_json(options.out, content)


if __name__ == "__main__":
    main()

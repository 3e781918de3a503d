"""Is the split of a language model as fast as plain PEFT of the whole?

SmolLM2 on the same questions and answers, batches, precision and threads: plain `peft` as people
write it (labels of -100 where nothing is to be learned), with the fused and with the plain
attention, and one device that trains through an edge server, every message serialised. Arms take
turns in one process; a ratio is taken within each turn, once of wall times and once of processor
times, which other work on the machine disturbs less. Prints a table, writes JSON.

    python benchmarks/step_llm.py --out docs/results/step-llm.json
"""

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from measured import machine, print_table, write_json
from peft import LoraConfig, get_peft_model
from step import Arm, pipeline, ratio
from transformers import AutoModelForCausalLM

from elsa.config.load import load_config
from elsa.data.batches import Batch, BatchStream
from elsa.engine.build import open_sources
from elsa.engine.machine import prepare
from elsa.engine.parts import ModelParts, encode

STEPS = 3
BATCH = 8


def plain_peft(model: ModelParts, batches: Iterator[Batch], attention: str) -> Arm:
    """The whole model, its frozen weights in bfloat16 as elsa holds them, under autocast."""
    whole = AutoModelForCausalLM.from_pretrained(
        model.checkpoint.directory, dtype=torch.bfloat16, attn_implementation=attention
    )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=model.lora.rank,
        lora_alpha=int(model.lora.alpha),
        target_modules=list(model.checkpoint.family.targets),
        lora_dropout=0.0,
    )
    tuned = get_peft_model(whole, config).train()
    trained = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0, fused=True)

    def train() -> int:
        rows = 0
        for batch in itertools.islice(batches, STEPS):
            with torch.autocast("cpu", torch.bfloat16):
                loss = tuned(
                    input_ids=batch.input_ids, attention_mask=batch.mask, labels=batch.labels
                ).loss
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            rows += len(batch.lengths)
        return rows

    return train


def main() -> None:
    """Measure all arms in turns, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    prepare(options.threads)
    config = load_config(
        "smollm2",
        [
            "federation.devices=1",
            "federation.edges=1",
            f"federation.local_steps={STEPS}",
            f"train.batch_size={BATCH}",
            "model.precision=bfloat16",
            "wire.preset=exact",
            f"run.threads={options.threads}",
        ],
    )
    sources = open_sources(config)
    examples = encode(sources.text.train, sources.tokenizer, config)

    def batches() -> Iterator[Batch]:
        return BatchStream(examples, BATCH, 0, True, sources.tokenizer.pad_id)

    arms: dict[str, Arm] = {
        "plain PEFT": plain_peft(sources.model, batches(), "sdpa"),
        "plain PEFT, eager attention": plain_peft(sources.model, batches(), "eager"),
        "elsa": pipeline(config, sources),
    }
    clocks: dict[str, Callable[[], float]] = {"wall": perf_counter, "processor": process_time}
    rates: dict[str, dict[str, list[float]]] = {
        clock: {name: [] for name in arms} for clock in clocks
    }
    for turn in range(options.turns + 1):
        for name, arm in arms.items():
            began = {clock: now() for clock, now in clocks.items()}
            rows = arm()
            if turn:
                for clock, now in clocks.items():
                    rates[clock][name].append(rows / (now() - began[clock]))
        if turn:
            table = [row for clock, own in rates.items() for row in compared(clock, own)]
            print_table(table)
            if options.out:
                content = {"machine": machine(), "threads": options.threads, "turns": turn}
                write_json(options.out, {**content, "rows": table})


def compared(clock: str, rates: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    """A row an arm: samples a second of this clock, and its ratios to plain PEFT."""
    table: list[dict[str, Any]] = []
    for name, rate in rates.items():
        for_plain = ratio(rate, rates["plain PEFT"])
        for_eager = ratio(rate, rates["plain PEFT, eager attention"])
        table.append(
            {
                "clock": clock,
                "arm": name,
                "samples_per_second": statistics.median(rate),
                "ratio_to_plain": statistics.median(for_plain),
                "ratio_min": min(for_plain),
                "ratio_max": max(for_plain),
                "ratio_to_eager": statistics.median(for_eager),
            }
        )
    return table


if __name__ == "__main__":
    main()

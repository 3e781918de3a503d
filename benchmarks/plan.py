"""Does the plan say what is measured? Memory, bytes and seconds of a device, by split.

Memory: a process of its own that holds only the device's segments, as sparing as `elsa device`,
takes a few local steps on its largest batch, with random states in place of the edge's; the peak of
its resident memory, minus that of the same process with a model of no size to speak of (8 wide).
Bytes: those that the meter counts in a first round. Seconds: processor time of the device's own
work in a step, against the speed found in one step at (1, 1); median of several, one thread.

    python benchmarks/plan.py --out docs/results/plan.json
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from device_memory import own_environment
from measured import machine, print_table, write_json
from torch import Tensor

from elsa.config.load import load_config
from elsa.config.schema import Config
from elsa.core.codec import EXACT, Identity
from elsa.core.cost import passes_of, step_work
from elsa.core.split import Split
from elsa.data.batches import Examples
from elsa.engine.build import build_federation, open_sources
from elsa.engine.machine import prepare
from elsa.engine.parts import ModelParts, load_model, model_directory
from elsa.engine.plan import plan_of
from elsa.engine.planner import Planner
from elsa.engine.prices import Prices
from elsa.engine.simulate import Simulation
from elsa.model.segments import adapter_shapes
from elsa.roles.device import Device, DeviceSettings
from elsa.roles.exchange import Ahead, Due, Exchange
from elsa.roles.learner import OptimizerSettings
from elsa.wire.messages import Accepted, Activations, Gradients, LocalPlan, Message, Ready

SETTINGS = (
    "run.threads=1",
    "model.precision=float32",
    "wire.preset=exact",
    "federation.rounds=1",
)
CUTS: dict[str, tuple[tuple[int, int], ...]] = {
    "minilm": ((1, 0), (1, 1), (2, 2), (4, 1)),
    "smollm2": ((1, 0), (1, 1), (2, 2)),
}
TASKS: dict[str, tuple[str, ...]] = {
    "minilm": (),
    "smollm2": ("model.task=causal-lm", "partition.kind=iid"),
}
ROWS: dict[str, int] = {"minilm": 16, "smollm2": 4}
WIDTH = 64
STEPS = 6
CLASSES = 6


def config_of(model: str, cuts: tuple[int, int]) -> Config:
    own = [f"model.path={model}", f"train.batch_size={ROWS[model]}", *TASKS[model]]
    return load_config(None, [*SETTINGS, *own, f"split.bottom={cuts[0]}", f"split.top={cuts[1]}"])


def examples_of(parts: ModelParts, rows: int, width: int) -> Examples:
    """Random tokens, all texts as long as the longest but one."""
    rng = np.random.default_rng(0)
    lengths = [width] * (rows - 1) + [width - 1]
    words = parts.checkpoint.vocabulary
    ids = [rng.integers(3, words, length).astype(np.int32) for length in lengths]
    causal = parts.shape().head_per_token
    return Examples(ids, labels=None if causal else rng.integers(0, CLASSES, rows))


def device_of(parts: ModelParts, split: Split, examples: Examples, rows: int) -> Device:
    settings = DeviceSettings(OptimizerSettings(1e-3, 0.0, True), rows, rows, False, 0, seed=0)
    return Device("device", parts.segments(split), examples, examples.take([]), EXACT, settings)


class Stand:
    """Answers a device as its edge would, with random states; takes the time that it does not."""

    def __init__(self, parts: ModelParts, split: Split, steps: int) -> None:
        names = adapter_shapes(parts.checkpoint, parts.task, parts.lora)
        segments = parts.segments(split)
        own = set(segments.adapter_names)
        generator = torch.Generator().manual_seed(0)
        self._adapters = {
            name: 0.01 * torch.randn(shape, generator=generator)
            for name, shape in names.items()
            if name in own
        }
        self._dtype, self._hidden = parts.checkpoint.dtype, parts.checkpoint.hidden_size
        self._steps = steps
        self._tokens = 0
        self._down: Sequence[int] = ()
        self._reach = segments.top.reach if segments.top else "all"

    def answer(self, request: Message) -> Message:
        if isinstance(request, Ready):
            return LocalPlan(0, 0, self._steps, 1, self._adapters)
        if isinstance(request, Activations):
            self._tokens = sum(request.lengths)
            whole = self._reach == "all"
            self._down = request.lengths if whole else (1,) * len(request.lengths)
            packet = Identity().encode(self._random(sum(self._down)), None)  # type: ignore[arg-type]
            return Activations(request.step, True, self._down, packet)
        if isinstance(request, Gradients):
            packet = Identity().encode(1e-4 * self._random(self._tokens), None)  # type: ignore[arg-type]
            return Gradients(request.step, packet)
        return Accepted()

    def _random(self, tokens: int) -> Tensor:
        generator = torch.Generator().manual_seed(tokens)
        return torch.randn(tokens, self._hidden, generator=generator).to(self._dtype)


def steps_of(exchange: Exchange[Any], stand: Stand) -> list[float]:
    """Seconds of the device's own work in each local step."""
    found: list[float] = []
    answer: Message | None = None
    own = 0.0
    while True:
        began = process_time()
        try:
            request = next(exchange) if answer is None else exchange.send(answer)
            assert not isinstance(request, Ahead | Due)  # one micro-batch in flight
        except StopIteration:
            return found
        own += process_time() - began
        if isinstance(request, Activations):  # what came before it ends the step before
            found.append(own)
            own = 0.0
        answer = stand.answer(request)


def child(model: str, cuts: tuple[int, int], rows: int, width: int) -> None:
    """A device process: print its peak memory and the seconds of its steps."""
    prepare(1, sparing=True)
    parts = opened(model)
    split = Split.of(parts.checkpoint.blocks, *cuts)
    device = device_of(parts, split, examples_of(parts, rows, width), rows)
    seconds = steps_of(device.train(0, 0), Stand(parts, split, STEPS))
    print(json.dumps([peak_of_this(), statistics.median(seconds[2:])]))


def peak_of_this() -> int:
    """Most bytes that this process has held; what resource says begins with its parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def opened(model: str) -> ModelParts:
    """A model by its name in CUTS, or a directory of a tiny encoder."""
    overrides = TASKS.get(model, ())
    config = load_config(None, [*SETTINGS, f"model.path={model}", *overrides])
    return load_model(config, CLASSES, model_directory(model, lambda _: None))


def measured(model: str, cuts: tuple[int, int], rows: int, width: int) -> tuple[int, float]:
    """Peak bytes of a device process, and seconds of its own work in a step."""
    command = [sys.executable, __file__, "--child", model, *map(str, (*cuts, rows, width))]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=own_environment(), check=True)
    peak, seconds = json.loads(done.stdout.splitlines()[-1])
    return peak, seconds


def tiny(folder: str) -> str:
    """A model of next to no size, for what a process holds without one."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=64,
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def device_rows(model: str, baseline: int) -> list[dict[str, Any]]:
    """A row a split: memory and seconds, predicted and measured."""
    parts, rows, found = opened(model), ROWS[model], []
    batch = (WIDTH,) * (rows - 1) + (WIDTH - 1,)
    results = {cuts: measured(model, cuts, rows, WIDTH) for cuts in CUTS[model]}
    passes = passes_of(parts.shape(), [batch])

    def work(cuts: tuple[int, int]) -> float:
        split = Split.of(parts.checkpoint.blocks, *cuts)
        return step_work(parts.shape(), split, passes).device

    speed = work((1, 1)) / results[1, 1][1]
    for cuts, (peak, seconds) in results.items():
        prices = Prices(config_of(model, cuts), parts)
        memory = prices.memory(prices.demand([batch]), Split.of(parts.checkpoint.blocks, *cuts))
        found.append(
            {
                "model": model,
                "p, q": f"{cuts[0]}, {cuts[1]}",
                "plan_mb": memory.total / 1e6,
                "measured_mb": (peak - baseline) / 1e6,
                "memory_ratio": memory.total / (peak - baseline),
                "plan_seconds": work(cuts) / speed,
                "measured_seconds": seconds,
                "seconds_ratio": work(cuts) / speed / seconds,
            }
        )
    return found


def byte_rows() -> list[dict[str, Any]]:
    """A row a split: bytes and simulated seconds of a first round, planned and counted."""
    found = []
    for wire in ("exact", "4 bits"):
        for cuts in ((1, 0), (1, 1), (2, 2)):
            config = config_of("minilm", cuts)
            if wire != "exact":
                hops = dict.fromkeys(("h1", "h2", "g2", "g1"), "rotate+quantize:4:token:gauss")
                config = config.model_copy(update={"wire": config.wire.model_copy(update=hops)})
            small = config.federation.model_copy(update={"devices": 4, "local_steps": 2})
            config = config.model_copy(update={"federation": small})
            sources = open_sources(config)
            federation = build_federation(config, sources)
            plan = plan_of(federation, Planner(federation, sources, config))
            simulation = Simulation(federation)
            simulation.train_round()
            devices = plan.totals()["devices"]
            counted = federation.meter.by_hop(phase="train")
            found.append(
                {
                    "wire": wire,
                    "p, q": f"{cuts[0]}, {cuts[1]}",
                    "up_ratio": devices["up"] / counted["device_to_edge"],
                    "down_ratio": devices["down"] / counted["edge_to_device"],
                    "round_seconds_ratio": plan.seconds / simulation.seconds,
                }
            )
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--models", nargs="+", choices=list(CUTS), default=list(CUTS))
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        model, *numbers = options.child
        bottom, top, count, width = map(int, numbers)
        child(model, (bottom, top), count, width)
        return
    prepare(1)
    with tempfile.TemporaryDirectory() as folder:
        baseline = measured(tiny(folder), (1, 1), 16, WIDTH)[0]
    rows: list[dict[str, Any]] = []
    for model in options.models:
        rows += device_rows(model, baseline)
        print_table(rows)
    sent = byte_rows()
    print_table(sent)
    if options.out:
        content = {"settings": SETTINGS, "batch": ROWS, "width": WIDTH}
        content |= {"baseline_mb": baseline / 1e6, "devices": rows, "rounds": sent}
        write_json(options.out, {"machine": machine(), **content})


if __name__ == "__main__":
    main()

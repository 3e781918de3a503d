"""A tiny model whole and in pieces, and who trains it unsplit, for the tests beside this file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elsa.config.schema import Config
from elsa.config.schema import Federation as FederationConfig
from elsa.core.codec import EXACT, HopCodecs
from elsa.core.cost import ModelShape
from elsa.core.split import Split
from elsa.data.batches import BatchStream, Examples
from elsa.engine.clock import device_speeds, latencies
from elsa.engine.federation import Federation
from elsa.model.checkpoint import Checkpoint
from elsa.model.segments import (
    build_bottom,
    build_top,
    build_trunk,
    build_whole,
    initial_adapters,
)
from elsa.model.tasks import CausalLM, Classification, LoraSpec, Task
from elsa.roles.cloud import Cloud, Schedule
from elsa.roles.device import Device, DeviceSettings, Segments
from elsa.roles.edge import Edge
from elsa.roles.edgemodel import EdgeModel
from elsa.roles.learner import OptimizerSettings
from elsa.roles.trunk import PerDeviceTrunk, SharedTrunk
from elsa.wire.meter import Meter

Tiny = Callable[[str], Path]
Adapters = dict[str, Tensor]
LORA = LoraSpec(rank=2, alpha=4)
KEEP = OptimizerSettings(learning_rate=1e-2, weight_decay=0.01, keep_moments=True)
RESET = replace(KEEP, keep_moments=False)
BATCH, STEPS = 4, 3
CASES: list[tuple[str, Task]] = [
    ("bert", Classification(3, "mean")),
    ("gpt2", Classification(3, "last")),
    ("llama", Classification(3, "last")),
    ("gpt2", CausalLM()),
    ("llama", CausalLM()),
]
BERT = CASES[0]


class Parts:
    """A tiny model, whole and in pieces."""

    def __init__(self, checkpoint: Checkpoint, task: Task, lora: LoraSpec = LORA) -> None:
        self.checkpoint, self.task = checkpoint, task
        self.trunk = cache(lambda split: build_trunk(checkpoint, split, task, lora))
        self.segments = cache(
            lambda split: Segments(
                split,
                checkpoint.hidden_size,
                build_bottom(checkpoint, split, task, lora),
                build_top(checkpoint, split, task, lora),
            )
        )
        self.whole = build_whole(checkpoint, task, lora)
        generator = torch.Generator().manual_seed(5)
        self.adapters: Adapters = {  # far from their start, so that every gradient is there
            name: value + 0.3 * torch.randn(value.shape, generator=generator)
            for name, value in initial_adapters(checkpoint, task, lora, seed=1).items()
        }

    def split(self, cuts: tuple[int, int]) -> Split:
        return Split.of(self.checkpoint.blocks, *cuts)

    def examples(self, rows: int, seed: int = 0) -> Examples:
        """Ragged rows; a row of one token among them has no target in a language model."""
        rng = np.random.default_rng(seed)
        lengths = [1, *rng.integers(2, 12, rows - 1)]
        ids = [rng.integers(3, 64, length).astype(np.int32) for length in lengths]
        causal = isinstance(self.task, CausalLM)
        return Examples(ids, labels=None if causal else rng.integers(0, 3, rows))

    def device(
        self,
        name: str,
        examples: Examples,
        cuts: tuple[int, int] = (1, 1),
        optimizer: OptimizerSettings = KEEP,
        codecs: HopCodecs = EXACT,
        **more: Any,
    ) -> Device:
        settings = DeviceSettings(optimizer, BATCH, BATCH, True, 0, seed=7, **more)
        return Device(name, self.segments(self.split(cuts)), examples, examples, codecs, settings)

    def federation(
        self,
        groups: Mapping[str, Sequence[Device]],
        *,
        edge_rounds: int = 1,
        steps: int = STEPS,
        shared: bool = False,
        optimizer: OptimizerSettings = KEEP,
        codecs: Callable[[], HopCodecs] = lambda: EXACT,
    ) -> Federation:
        shape = (self.checkpoint.blocks, self.checkpoint.hidden_size)
        model = EdgeModel(*shape, 64, self.trunk, seed=0, in_flight=BATCH)
        kind = SharedTrunk if shared else PerDeviceTrunk
        devices = {device.name: device for group in groups.values() for device in group}
        assignment = {edge: [device.name for device in group] for edge, group in groups.items()}
        config = Config(federation=FederationConfig(trunk="shared" if shared else "per-device"))
        meter = Meter()
        return Federation(
            config=config,
            cloud=Cloud(self.adapters, assignment, Schedule(edge_rounds, steps, 1.0, seed=0)),
            edges={name: Edge(name, model, kind(optimizer), lambda _: codecs()) for name in groups},
            devices=devices,
            testers={},
            speeds=device_speeds(config.network, list(devices), seed=0),
            latencies=latencies(config.network, list(devices), list(groups), seed=0),
            shape=ModelShape(self.checkpoint.blocks, self.checkpoint.hidden_size, 1000, 96, False),
            meter=meter,
            layers=(meter,),
        )


class Central:
    """Whoever has the whole model and the rows of one device, and trains as anybody would."""

    def __init__(self, parts: Parts, examples: Examples, optimizer: OptimizerSettings = KEEP):
        self.parts, self.examples, self.settings = parts, examples, optimizer
        self.stream = BatchStream(examples, BATCH, seed=7, bucketing=True, pad_id=0)
        self.parameters: dict[str, nn.Parameter] = {}

    def train(self, adapters: Adapters, steps: int = STEPS) -> tuple[Adapters, float]:
        """Go on from `adapters`; what they became, and the mean loss over the rows."""
        if not self.parameters or not self.settings.keep_moments:
            self.parameters = {k: nn.Parameter(value.clone()) for k, value in adapters.items()}
            self.optimizer = torch.optim.AdamW(
                self.parameters.values(),
                lr=self.settings.learning_rate,
                weight_decay=self.settings.weight_decay,
                fused=True,  # the same kernel; the others round otherwise
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(adapters[name])
        whole, losses, rows = self.parts.whole, 0.0, 0
        for _ in range(steps):
            batch = next(self.stream)
            whole.bind(self.parameters)
            loss = whole.learn(batch.input_ids, batch.mask, batch.labels, batch.token_types)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses += len(batch.rows) * float(loss.detach())
            rows += len(batch.rows)
        return {k: value.detach().clone() for k, value in self.parameters.items()}, losses / rows


def fedavg(updates: Sequence[tuple[Adapters, int]]) -> Adapters:
    total = sum(rows for _, rows in updates)
    return {
        name: (sum(rows * it[name].double() for it, rows in updates) / total).float()
        for name in updates[0][0]
    }

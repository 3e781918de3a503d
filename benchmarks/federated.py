"""Federated averaging of all weights: what the wire study compares adapters with.

The rows, edges, rounds, local steps, batches and evaluation of `elsa run`, and its averages:
devices at their edge by rows, edges at the cloud. Every device holds and trains a whole model, all
of its weights and the head, without LoRA, computed in the config's precision, and sends them as
float32. There are no adapters in that, so elsa itself cannot do it; whole models with LoRA are its
method `hierarchical-fedavg`.

Bytes are those of elsa's own messages with these tensors, float32, by hop; a kind of message is
serialised once, since its size changes by a byte or two only.

    python benchmarks/federated.py --seed 0 --json
    python benchmarks/federated.py --tune --seed 100 --out tuning.json
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from measured import machine, print_table, write_json
from torch import Tensor
from torch.func import functional_call

from elsa.config.load import load_config
from elsa.config.schema import Config
from elsa.core.aggregate import WeightedMean
from elsa.core.score import Tally, tally
from elsa.data.batches import Batch, eval_batches
from elsa.engine.build import TESTER, Sources, build_federation, open_sources
from elsa.engine.machine import prepare
from elsa.engine.parts import ModelParts
from elsa.engine.scores import evaluated
from elsa.errors import ConfigError, ElsaError
from elsa.model.checkpoint import open_checkpoint
from elsa.model.segments import Whole, build_whole, initial_adapters
from elsa.roles.cloud import Cloud, Schedule
from elsa.roles.device import Device
from elsa.roles.learner import Learner
from elsa.wire import messages
from elsa.wire.messages import DeviceReport, EdgeUpdate, Message, RoundOrder, Update
from elsa.wire.serde import encode

RATE = 1e-4
"""Unless `--set` gives one; from the grid below."""
GRID = (2e-5, 5e-5, 1e-4, 2e-4)

Forward = Callable[[Batch, Mapping[str, Tensor]], Tensor]


@dataclass
class Ledger:
    """Counts bytes by hop as elsa's messages would take them."""

    sizes: dict[type[Message], int] = field(default_factory=dict)
    bytes: Counter[str] = field(default_factory=Counter)

    def send(self, hop: str, message: Message) -> None:
        """Count a message."""
        kind = type(message)
        if kind not in self.sizes:
            self.sizes[kind] = len(encode(message))
        self.bytes[hop] += self.sizes[kind]


@dataclass(frozen=True)
class Learnt:
    """Tensors to start from, the logits of a batch with them, and the loss of logits."""

    start: dict[str, Tensor]
    forward: Forward
    loss: Callable[[Tensor, Tensor], Tensor]


def full_model(model: ModelParts, seed: int) -> Learnt:
    """The model with all its weights trainable, from the values in its files."""
    task, lora = model.task, model.lora
    head = initial_adapters(model.checkpoint, task, lora, seed)
    exact = open_checkpoint(model.checkpoint.directory, torch.float32)
    start = _plain(build_whole(exact, task, lora), head)
    whole = build_whole(model.checkpoint, task, lora)
    _plain(whole, head)

    def forward(batch: Batch, tensors: Mapping[str, Tensor]) -> Tensor:
        inputs = (batch.input_ids, batch.mask, batch.token_types)
        logits: Tensor = functional_call(whole, dict(tensors), inputs)
        return logits

    return Learnt(start, forward, whole.loss)


def _plain(whole: Whole, bound: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take LoRA out of a model again, its head bound; the parameters that are left, by path."""
    whole.bind(bound)
    for path, module in list(whole.named_modules()):
        if hasattr(module, "base_layer"):
            whole.set_submodule(path, module.base_layer, strict=True)
    return {path: value.detach() for path, value in whole.named_parameters()}


class Federation:
    """Devices that train whole models, with the rows and streams of an `elsa run`."""

    def __init__(self, config: Config, sources: Sources, learnt: Learnt) -> None:
        built = build_federation(config, sources)
        it = config.federation
        schedule = Schedule(it.edge_rounds, it.local_steps, it.participation, config.run.seed)
        self.cloud = Cloud(learnt.start, built.cloud.assignment, schedule)
        self.ledger = Ledger()
        self.samples = 0
        honest = {name: it for name, it in built.devices.items() if isinstance(it, Device)}
        if len(honest) < len(built.devices):
            raise ConfigError("[attack] is of the split's messages; it is not known here")
        self._devices = {**honest, TESTER: built.testers[next(iter(built.edges))][0]}
        self._learnt = learnt
        self._evaluate = (config.evaluate.batch_size, sources.tokenizer.pad_id)
        self._settings = self._devices[TESTER]._settings.optimizer
        self._moments: dict[str, dict[str, Tensor]] = {}

    def round(self) -> None:
        """One global round."""
        for edge, order in self.cloud.orders().items():
            self.ledger.send("cloud_to_edge", order)
            update = self._edge(order)
            self.ledger.send("edge_to_cloud", update)
            self.cloud.receive(edge, update)
        self.cloud.close_round()

    def tallies(self) -> dict[str, Tally]:
        """What each device and the tester count with the global tensors."""
        with torch.no_grad():
            return {name: self._count(device) for name, device in self._devices.items()}

    def _count(self, device: Device) -> Tally:
        batches, tensors = eval_batches(device._held_out, *self._evaluate), self.cloud.adapters
        counts = (tally(self._learnt.forward(it, tensors), it.labels) for it in batches)
        return sum(counts, Tally())

    def _edge(self, order: RoundOrder) -> EdgeUpdate:
        tensors = dict(order.adapters)
        for edge_round in range(order.edge_rounds):
            mean, reports = WeightedMean(), []
            for name in order.devices:
                update = self._device(name, order, edge_round, tensors)
                mean.add(update.adapters, update.rows)
                reports.append(DeviceReport(name, update.rows, update.samples, update.loss))
                self.samples += update.samples
            tensors = mean.result(otherwise=tensors)
        weight = float(sum(it.rows for it in reports))
        return EdgeUpdate(order.round, tensors, weight, tuple(reports))

    def _device(
        self, name: str, order: RoundOrder, edge_round: int, tensors: Mapping[str, Tensor]
    ) -> Update:
        device = self._devices[name]
        assert device._stream is not None
        round_, steps = order.round, order.local_steps
        self.ledger.send("device_to_edge", messages.Ready(round_, edge_round, 1, 1))
        plan = messages.LocalPlan(round_, edge_round, steps, 2**32 - 1, tensors)
        self.ledger.send("edge_to_device", plan)
        learner = Learner(tensors, self._settings, self._moments.get(name))
        losses, samples = [], 0
        for _ in range(steps):
            batch = next(device._stream)
            loss = self._learnt.loss(self._learnt.forward(batch, learner.parameters), batch.labels)
            torch.autograd.backward(loss)
            learner.step()
            losses.append(float(loss.detach()))
            samples += len(batch.lengths)
        if self._settings.keep_moments:
            self._moments[name] = learner.moments()
        held = (learner.tensors(), len(device._training), samples, sum(losses) / steps)
        update = Update(round_, edge_round, *held)
        self.ledger.send("device_to_edge", update)
        self.ledger.send("edge_to_device", messages.Accepted())
        return update


def train(config: Config) -> dict[str, Any]:
    """A whole run; what the summary of an `elsa run` holds, as far as it applies."""
    began = monotonic()
    prepare(config.run.threads)
    sources = open_sources(config)
    federation = Federation(config, sources, full_model(sources.model, config.run.seed))
    for _ in range(config.federation.rounds):
        federation.round()
    last = federation.cloud.round - 1
    _, scores = evaluated(last, federation.tallies(), {"": TESTER}, causal=False)
    return {
        "accuracy": scores.accuracy,
        "accuracy_mean_device": scores.accuracy_mean_device,
        "accuracy_worst_device": scores.accuracy_worst_device,
        "loss": scores.loss,
        "samples": federation.samples,
        "wall_seconds": monotonic() - began,
        "bytes": dict(federation.ledger.bytes),
    }


def main() -> None:
    """Train or tune, print and write."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--json", action="store_true", help="print the summary alone, as JSON")
    parser.add_argument("--tune", action="store_true", help="try a grid of learning rates")
    parser.add_argument("--rates", type=float, nargs="+", help="grid of --tune")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rates = (options.rates or GRID) if options.tune else [RATE]
    rows = []
    try:
        for rate in rates:
            own = [f"run.seed={options.seed}", f"train.learning_rate={rate}", *options.settings]
            config = load_config(None, ["wire.preset=exact", *own])
            facts = {"seed": options.seed, "rate": config.train.learning_rate}
            rows.append(facts | train(config))
            if not options.json:
                print_table([{k: v for k, v in rows[-1].items() if k != "bytes"}])
    except ElsaError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    if options.json:
        sys.stdout.write(json.dumps(rows if options.tune else rows[0], indent=1) + "\n")
    if options.out:
        write_json(options.out, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()

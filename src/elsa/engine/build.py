"""From a config to the parties of a run: the only place where names become objects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from torch import Tensor

from elsa.config.names import numbered
from elsa.config.schema import Config
from elsa.core.codec import HopCodecs
from elsa.core.cost import ModelShape
from elsa.core.secret import SecretSeed
from elsa.data.batches import Examples, joined
from elsa.engine.aggregation import (
    cloud_mean,
    device_rank,
    edge_mean,
    flights_of,
    server_optimizer,
)
from elsa.engine.clock import centre, device_speeds, latencies
from elsa.engine.codecs import adapters_sent, codecs_by, prepare_codecs
from elsa.engine.directions import public_directions
from elsa.engine.federation import Federation
from elsa.engine.fitting import check_early, check_fits
from elsa.engine.grouping import overseer_of
from elsa.engine.parts import (
    ModelParts,
    Say,
    Text,
    digests,
    encode,
    load_text,
    model_directory,
    split_of,
    table_digest,
)
from elsa.engine.perturbation import perturbation_of, simulated_secret
from elsa.engine.poison import plot_of, poisoned, poisoned_rows
from elsa.engine.probes import open_probing
from elsa.engine.shares import shares_of
from elsa.engine.tasks import TaskParts, data_of, devices_of, load_models
from elsa.model.segments import initial_adapters
from elsa.model.tokenizer import Tokenizer, load_tokenizer
from elsa.roles.attacker import Attacker, forging
from elsa.roles.cloud import Cloud, Schedule
from elsa.roles.device import Device, DeviceSettings
from elsa.roles.edge import Edge
from elsa.roles.edgemodel import EdgeModel
from elsa.roles.flights import Flights
from elsa.roles.learner import OptimizerSettings
from elsa.roles.overseer import Overseer
from elsa.roles.probing import Probing
from elsa.roles.trunk import PerDeviceTrunk, SequentialTrunk, SharedTrunk, TrunkAdapters
from elsa.wire.meter import Meter
from elsa.wire.transport import Layer

TESTER = "test"
"""Name of the device that holds the common test rows, of the only task, and only evaluates."""

POOL = "pool"
"""Name of the only trainer where [federation] pools the rows of all devices."""

_TRUNKS: dict[str, Callable[[OptimizerSettings], TrunkAdapters]] = {
    "per-device": PerDeviceTrunk,
    "shared": SharedTrunk,
    "sequential": SequentialTrunk,
}


@dataclass(frozen=True)
class Sources:
    """What a federation is built from, opened once.

    Attributes:
        tasks: at least one.
        tokenizer: of the model.
    """

    tasks: tuple[TaskParts, ...]
    tokenizer: Tokenizer

    @property
    def text(self) -> Text:
        """The rows of the first task."""
        return self.tasks[0].text

    @property
    def model(self) -> ModelParts:
        """The model with the head of the first task."""
        return self.tasks[0].model

    def labels(self) -> dict[str, list[str]]:
        """Names of the classes, by task."""
        return {task.name: list(task.text.train.label_names) for task in self.tasks}


def open_sources(config: Config, say: Say = lambda _: None) -> Sources:
    """Fetch and open text and model.

    Raises:
        ElsaError: they cannot be had, or do not fit the config.
    """
    check_early(config)
    prepare_codecs(config.wire, say)
    texts = {name: load_text(config, data, say) for name, data in data_of(config).items()}
    directory = model_directory(config.model.path, say)
    check_fits(config, directory)
    labels = {name: list(text.train.label_names) for name, text in texts.items()}
    models = load_models(config, labels, directory)
    tasks = tuple(TaskParts(name, texts[name], models[name]) for name in texts)
    return Sources(tasks, load_tokenizer(directory))


def build_federation(config: Config, sources: Sources, layers: Sequence[Layer] = ()) -> Federation:
    """Build all parties in this process, sharing one frozen backbone.

    Args:
        config: what to build.
        sources: its text and model.
        layers: of every link, besides the meter.

    Raises:
        ElsaError: text, model and config do not go together.
    """
    model, seed = sources.model, config.run.seed
    names, edge_names = device_names(config), list(assignment_of(config))
    seconds = latencies(config.network, names, edge_names, seed)
    speeds = device_speeds(config.network, names, seed)
    trainers = [POOL] if config.federation.pooled else names
    if config.federation.pooled:
        speeds[POOL] = centre(config.network)
        seconds |= {(POOL, edge): 0.0 for edge in edge_names}
    overseer = overseer_of(config, trainers, edge_names, seconds, Overseer)
    models = {task.name: task.model for task in sources.tasks}
    probing = cache(partial(open_probing, config, models, sources.tokenizer))
    codecs_of = _codecs_of(config, sources)
    devices = _devices(config, sources, names, codecs_of)
    testers = [_tester(config, sources, task, codecs_of) for task in sources.tasks]
    if config.federation.pooled:
        honest = [it for it in devices.values() if isinstance(it, Device)]
        testers += [device.evaluating() for device in honest]
        devices = {POOL: _pool(config, sources, honest, codecs_of)}
    meter = Meter()
    return Federation(
        config=config,
        cloud=cloud_of(config, initial_of(sources, seed), overseer),
        edges={
            name: edge_of(config, model, name, codecs_of, probing, flights_of(config))
            for name in edge_names
        },
        devices=devices,
        testers={edge_names[0]: testers},
        speeds=speeds,
        latencies=seconds,
        shape=max((task.model.shape() for task in sources.tasks), key=_head_weights),
        meter=meter,
        layers=(meter, *layers),
    )


def _codecs_of(config: Config, sources: Sources) -> Callable[[str], HopCodecs]:
    """What makes the codecs of one end, given whose they are; its axes are found here."""
    model = sources.model
    directions = public_directions(config, model, sources.tokenizer)
    return codecs_by(config, model.checkpoint.hidden_size, directions)


def device_names(config: Config) -> list[str]:
    """Names of the devices that train; the place of one is its number."""
    return numbered("device", config.federation.devices)


def assignment_of(config: Config) -> dict[str, list[str]]:
    """The devices of each edge, by name."""
    names, edges = device_names(config), numbered("edge", config.federation.edges)
    return {edge: names[number :: len(edges)] for number, edge in enumerate(edges)}


def cloud_of(
    config: Config, adapters: Mapping[str, Tensor], overseer: Overseer | None = None
) -> Cloud:
    """The cloud, with the adapters that everybody starts from; `overseer` says who is where."""
    federation = config.federation
    return Cloud(
        adapters,
        overseer.assignment() if overseer else assignment_of(config),
        Schedule(
            federation.edge_rounds,
            federation.steps,
            federation.participation,
            config.run.seed,
        ),
        adapters_sent(config.wire),
        cloud_mean(config.aggregate, config.adapter),
        server_optimizer(config.aggregate),
        overseer,
    )


def edge_of(
    config: Config,
    model: ModelParts,
    name: str,
    codecs_of: Callable[[str], HopCodecs],
    probing: Callable[[], Probing] | None = None,
    flights: Flights | None = None,
) -> Edge:
    """An edge; `codecs_of` makes codecs, given "<edge>/<device>", `probing` opens the probes.

    With `flights` an update counts when its time has come on a virtual clock.
    """
    edge_model = EdgeModel(
        model.checkpoint.blocks,
        model.checkpoint.hidden_size,
        config.model.max_tokens,
        model.trunk,
        config.run.seed,
        model.checkpoint.dtype,
        adapters_sent(config.wire),
        probing,
        config.split.layout,
        model.end,
        config.train.in_flight,
    )
    trunks = _TRUNKS[config.federation.trunk](_optimizer(config, model))
    mean = edge_mean(config.aggregate, config.adapter)
    return Edge(name, edge_model, trunks, _below(name, codecs_of), mean, flights)


def device_of(
    config: Config,
    model: ModelParts,
    pad_id: int,
    own: tuple[Examples, Examples],
    codecs: HopCodecs,
    name: str,
    number: int,
    secret: SecretSeed,
) -> Device:
    """A device that trains.

    Args:
        config: what to build.
        model: what it is built from.
        pad_id: token id that fills batches up.
        own: its rows to train on, and those to evaluate on; see `halves`.
        codecs: its own.
        name: its name.
        number: its place among the devices; its order of batches follows from it and the seed.
        secret: of its perturbation, if it perturbs.
    """
    split = split_of(config, model.checkpoint.blocks)
    rank = device_rank(config.adapter, number, config.federation.devices)
    settings = replace(_settings(config, model, pad_id, number, secret), rank=rank)
    return Device(name, model.segments(split), *own, codecs, settings)


def halves(rows: Examples, part: float, seed: int, number: int) -> tuple[Examples, Examples]:
    """A device's rows to train on, and the part kept back to evaluate on, at least one left."""
    order = np.random.default_rng((seed, number)).permutation(len(rows))
    kept_back = min(round(part * len(rows)), len(rows) - 1)
    return rows.take(order[kept_back:]), rows.take(order[:kept_back])


def digests_of(sources: Sources) -> tuple[dict[str, str], dict[str, str]]:
    """SHA-256 of the model's files and of the rows, for the manifest."""
    rows = {}
    for task in sources.tasks:
        start = f"{task.name}/" if task.name else ""
        rows[f"{start}train"] = table_digest(task.text.train)
        rows[f"{start}test"] = table_digest(task.text.test)
    return digests(sources.model.checkpoint.directory), rows


def initial_of(sources: Sources, seed: int) -> dict[str, Tensor]:
    """Global adapters to start from: the shared ones and the head of each task."""
    drawn: dict[str, Tensor] = {}
    for task in sources.tasks:
        model = task.model
        drawn |= initial_adapters(model.checkpoint, model.task, model.lora, seed)
    return drawn


def tester_of(task: str) -> str:
    """Name of the device that holds the test rows of a task and only evaluates."""
    return f"{TESTER}-{task}" if task else TESTER


def _head_weights(shape: ModelShape) -> int:
    return shape.head_weights


def _below(edge: str, codecs_of: Callable[[str], HopCodecs]) -> Callable[[str], HopCodecs]:
    """The codecs of an edge, by device."""
    return lambda device: codecs_of(f"{edge}/{device}")


def _devices(
    config: Config,
    sources: Sources,
    names: Sequence[str],
    codecs_of: Callable[[str], HopCodecs],
) -> dict[str, Device | Attacker]:
    evil, pad_id = poisoned(config, names), sources.tokenizer.pad_id
    devices: dict[str, Device | Attacker] = {}
    for task, members in zip(sources.tasks, devices_of(config, names), strict=True):
        part = data_of(config)[task.name].holdout_fraction
        examples = encode(task.text.train, sources.tokenizer, config)
        for name, rows in zip(members, shares_of(config, task, len(members)), strict=True):
            number, codecs = len(devices), codecs_of(name)
            secret = simulated_secret(config, name)
            own = halves(examples.take(rows), part, config.run.seed, number)
            of = (config, task.model, pad_id)
            device = device_of(*of, own, codecs, name, number, secret)
            devices[name] = device
            if name in evil:
                plot = plot_of(config, name)
                wrong = (poisoned_rows(config, own[0], task.classes), own[1])
                corrupt = device_of(*of, wrong, forging(codecs, plot), name, number, secret)
                devices[name] = Attacker(device, corrupt, plot)
    return devices


def _pool(
    config: Config,
    sources: Sources,
    devices: Sequence[Device],
    codecs_of: Callable[[str], HopCodecs],
) -> Device:
    """Who trains on the rows that all devices train on, and evaluates on none."""
    (task,) = sources.tasks
    rows = joined([device.training for device in devices])
    of = (config, task.model, sources.tokenizer.pad_id, (rows, rows.take([])), codecs_of(POOL))
    # The first device's number: where there is but one, its batches come in the same order.
    return device_of(*of, POOL, 0, simulated_secret(config, POOL))


def _tester(
    config: Config,
    sources: Sources,
    task: TaskParts,
    codecs_of: Callable[[str], HopCodecs],
) -> Device:
    model, name = task.model, tester_of(task.name)
    split = split_of(config, model.checkpoint.blocks)
    number, secret = config.federation.devices, simulated_secret(config, name)
    return Device(
        name,
        model.segments(split),
        Examples([]),
        encode(task.text.test, sources.tokenizer, config),
        codecs_of(name),
        _settings(config, model, sources.tokenizer.pad_id, number, secret),
    )


def _settings(
    config: Config, model: ModelParts, pad_id: int, number: int, secret: SecretSeed
) -> DeviceSettings:
    return DeviceSettings(
        optimizer=_optimizer(config, model),
        batch_size=config.train.batch_size,
        eval_batch_size=config.evaluate.batch_size,
        bucketing=config.train.bucketing,
        pad_id=pad_id,
        seed=int(np.random.SeedSequence((config.run.seed, number)).generate_state(1)[0]),
        perturbation=perturbation_of(config, secret, model.checkpoint.hidden_size),
        sent=adapters_sent(config.wire),
        micro_batch=config.train.micro_batch,
        keep_bytes=config.split.keep_mb * 10**6,
        recompute=config.train.recompute,
        in_flight=config.train.in_flight,
    )


def _optimizer(config: Config, model: ModelParts) -> OptimizerSettings:
    train = config.train
    return OptimizerSettings(
        train.learning_rate,
        train.weight_decay,
        train.optimizer_state == "keep",
        config.aggregate.mu,
        model.checkpoint.device,
    )

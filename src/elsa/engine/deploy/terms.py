"""What a device and its edge server must have alike before they can work together."""

import hashlib
from collections.abc import Mapping, Sequence

from elsa.config.schema import Config
from elsa.config.words import words_of
from elsa.data.table import Table
from elsa.engine.build import Sources, device_names
from elsa.engine.codecs import adapters_sent
from elsa.engine.fitting import check_early, check_fits
from elsa.engine.parts import ModelParts, Say, Text, digests, model_directory
from elsa.engine.tasks import TaskParts, data_of, devices_of, load_models
from elsa.errors import ConfigError
from elsa.model.tasks import Classification
from elsa.model.tokenizer import load_tokenizer


def terms_of(config: Config, model: ModelParts, labels: Sequence[str]) -> dict[str, str]:
    """The settings of this end, by name; what the machine chose is written out."""
    task, lora, train = model.task, model.lora, config.train
    terms = {
        "model.path": _digest(sorted(digests(model.checkpoint.directory).items())),
        "model.task": config.model.task,
        "model.precision": str(model.checkpoint.dtype).removeprefix("torch."),
        "model.max_tokens": str(config.model.max_tokens),
        "adapter.rank": str(lora.rank),
        "adapter.alpha": str(lora.alpha),
        "adapter.targets": ",".join(lora.targets),
        "split.layout": config.split.layout,
        "split.freeze": config.split.freeze,
        "train.learning_rate": str(train.learning_rate),
        "train.weight_decay": str(train.weight_decay),
        "train.optimizer_state": train.optimizer_state,
        "train.in_flight": str(train.in_flight),
        "aggregate.mu": str(config.aggregate.mu),
        "wire.adapters": adapters_sent(config.wire),
        # What noise is worth is told by the cloud's config.
        "noise.ratio": str(config.noise.ratio),
        "noise.gradient_ratio": str(config.noise.gradient_ratio),
        "noise.update_ratio": str(config.noise.update_ratio),
    }
    if isinstance(task, Classification):
        terms["data.labels"] = _digest(tuple(labels))
        terms["model.pooling"] = task.pooling
    words = words_of(config.wire, model.checkpoint.hidden_size)
    return terms | {f"wire.{hop}": own for hop, own in words.items()}


def check_terms(ours: Mapping[str, str], theirs: Mapping[str, str], us: str, them: str) -> None:
    """See that both ends have the same.

    Raises:
        ConfigError: with each setting that differs, and its value at either end.
    """
    differing = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if differing:
        shown = "; ".join(
            f"{name} is {theirs.get(name, 'unset')} at {them} and {ours.get(name, 'unset')} at {us}"
            for name in differing
        )
        raise ConfigError(f"{them} and {us} do not go together: {shown}. Give both one config")


def check_deployable(config: Config) -> None:
    """See that real machines can do what the config asks for.

    Raises:
        ConfigError: they cannot, or not yet.
    """
    if config.federation.trunk != "per-device":
        raise ConfigError(
            f"federation.trunk = '{config.federation.trunk}' is for simulation: real devices are "
            "not kept in step; allowed: 'per-device'"
        )
    if config.federation.pooled:
        raise ConfigError(
            "federation.pooled = true is for simulation, to compare with: rows of real devices "
            "stay where they are; allowed: false"
        )
    if config.attack.kind != "none":
        raise ConfigError(
            f"attack.kind = '{config.attack.kind}' is for simulation; allowed: 'none'"
        )
    if config.aggregate.late != "drop":
        raise ConfigError(
            f"aggregate.late = '{config.aggregate.late}' is for simulation: real edges leave out "
            "devices that are late; allowed: 'drop'"
        )
    if config.split.mode != "fixed":
        raise ConfigError(
            f"split.mode = '{config.split.mode}' is for simulation: nothing yet moves a block "
            "between real machines; allowed: 'fixed', with split.bottom and split.top, which each "
            "device may have of its own; `elsa plan` says which suit it"
        )
    for name, rows in data_of(config).items():
        if config.model.task == "classification" and len(rows.labels) < 2:
            raise ConfigError(
                f"{f'labels of [[task]] {name}' if name else 'data.labels'} is empty: no machine "
                "sees all rows, so each must be told the classes, as in labels = ['no', 'yes']"
            )


def told_sources(config: Config, say: Say) -> Sources:
    """The model with the head of each task, and no rows: for those to whom no text comes.

    Raises:
        ElsaError: the model cannot be had, or the config does not go with it.
    """
    check_early(config)
    directory = model_directory(config.model.path, say)
    check_fits(config, directory)
    labels = {name: tuple(rows.labels) for name, rows in data_of(config).items()}
    models = load_models(config, labels, directory)
    nothing = {name: Table((), label_names=classes) for name, classes in labels.items()}
    tasks = [TaskParts(it, Text(nothing[it], nothing[it]), models[it]) for it in labels]
    return Sources(tuple(tasks), load_tokenizer(directory))


def task_of(config: Config, device: str) -> str:
    """Name of the task whose rows a device holds; empty where there is one without a name."""
    shares = zip(data_of(config), devices_of(config, device_names(config)), strict=True)
    return next(task for task, members in shares if device in members)


def frame_limit(config: Config, hidden: int, adapter_bytes: int, axes: int = 0) -> int:
    """Bytes of the largest frame that an honest party sends.

    Args:
        config: of the run.
        hidden: D.
        adapter_bytes: of all adapters.
        axes: most public axes at a cut; only edges send any.
    """
    rows = max(config.train.batch_size, config.evaluate.batch_size)
    states = rows * config.model.max_tokens * hidden * 4
    return max(states, adapter_bytes, 2 * hidden * axes * 4) * 5 // 4 + 2**20


def _digest(what: object) -> str:
    return "sha256:" + hashlib.sha256(repr(what).encode()).hexdigest()[:16]

"""The tasks of a run: the one of `[data]`, without a name, or those of `[[task]]`."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from elsa.config.schema import Config, Rows
from elsa.engine.parts import ModelParts, Text, load_model
from elsa.model.tasks import Classification


@dataclass(frozen=True)
class TaskParts:
    """One task of a run.

    Attributes:
        name: empty if it is the only one.
        text: its rows.
        model: the model with its head; bottom and trunk are the same objects for all tasks.
    """

    name: str
    text: Text
    model: ModelParts

    @property
    def classes(self) -> int:
        """C, how many classes it has."""
        return len(self.text.train.label_names)

    def seed(self, seed: int) -> int:
        """The run's seed for a single task, else one of the task's own."""
        if not self.name:
            return seed
        words = f"{seed}/{self.name}/task".encode()
        return int.from_bytes(hashlib.blake2b(words, digest_size=4).digest())


def data_of(config: Config) -> Mapping[str, Rows]:
    """Where the rows of each task come from, by its name."""
    return {task.name: task for task in config.task} or {"": config.data}


def load_models(
    config: Config, labels: Mapping[str, Sequence[str]], directory: Path
) -> dict[str, ModelParts]:
    """The model with the head of each task, given the names of its classes.

    All have the same bottom and trunk; no weights are read yet.
    """
    (_, first), *_ = labels.items()
    model = load_model(config, len(first), directory)
    if "" in labels:
        return {"": model}
    task = model.task
    assert isinstance(task, Classification)
    return {
        name: model.with_task(replace(task, labels=len(classes), name=name))
        for name, classes in labels.items()
    }


def devices_of(config: Config, names: Sequence[str]) -> list[Sequence[str]]:
    """The devices of each task, in order: in proportion to the shares, at least one each.

    By largest remainders; a remainder as large as another goes to the earlier task.
    """
    if not config.task:
        return [names]
    total = sum(task.share for task in config.task)
    quotas = [len(names) * task.share / total for task in config.task]
    counts = [max(1, int(quota)) for quota in quotas]
    while sum(counts) != len(names):
        step = 1 if sum(counts) < len(names) else -1
        able = [number for number, count in enumerate(counts) if count + step >= 1]
        due = max(able, key=lambda number: step * (quotas[number] - counts[number]))
        counts[due] += step
    ends = [sum(counts[: number + 1]) for number in range(len(counts))]
    return [names[end - count : end] for count, end in zip(counts, ends, strict=True)]


def models_of(
    config: Config, tasks: Sequence[TaskParts], names: Sequence[str]
) -> dict[str, ModelParts]:
    """The model of each device: that of its task."""
    return {
        name: task.model
        for task, own in zip(tasks, devices_of(config, names), strict=True)
        for name in own
    }

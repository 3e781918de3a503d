"""Several tasks on real links: each device trains the head of its own, as in a simulation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elsa.config.schema import Config
from elsa.data.partition import partition
from elsa.engine.build import Sources, build_federation, open_sources
from elsa.engine.simulate import Simulation
from elsa.model.adapters import head_of


def with_tasks(config: Config, path: Path, labels: Sequence[str]) -> Config:
    """Two tasks on the same file, whose classes are in another order."""
    own = {"path": str(path), "text": "question", "label": "kind", "holdout_fraction": 0.2}
    tasks = [
        own | {"name": "one", "labels": tuple(labels)},
        own | {"name": "other", "labels": tuple(labels[::-1])},
    ]
    changed = {"task": tuple(tasks), "partition": {"kind": "iid"}}
    return Config.model_validate(config.model_dump() | changed)


def deal(sources: Sources, config: Config, folder: Path, write: Callable[..., None]) -> None:
    """Each device has the rows that it has in the simulation: all of its task's."""
    for number, task in enumerate(sources.tasks):
        train = task.text.train
        (share,) = partition(
            len(train),
            "iid",
            1,
            task.seed(config.run.seed),
            alpha=config.partition.alpha,
            min_rows=config.partition.min_rows,
            labels=train.label,
            groups=None,
        )
        write(folder / f"device-{number}.csv", train.take(np.asarray(share)))


def test_several_tasks_end_where_the_simulation_does(
    world: Callable[..., Any],
    play: Callable[..., list[str]],
    write_rows: Callable[..., None],
    questions: Path,
    rows: list[tuple[str, str]],
) -> None:
    there = world("federation.edges=2", "federation.devices=2")
    there.config = with_tasks(there.config, questions, sorted({label for _, label in rows}))
    sources = open_sources(there.config)
    deal(sources, there.config, there.folder, write_rows)
    edges = list(there.addresses)
    play(there, {f"device-{n}": {it: there.addresses[it]} for n, it in enumerate(edges)})
    federation = build_federation(there.config, sources)
    simulation = Simulation(federation)
    for _ in range(there.config.federation.rounds):
        simulation.train_round()
    expected = federation.cloud.adapters
    assert {head_of(name) for name in expected} == {"", "one", "other"}
    assert there.furthest(expected) == 0
    assert (there.folder / "run" / "adapter" / "one" / "adapter_config.json").is_file()

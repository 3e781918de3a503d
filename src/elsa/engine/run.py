"""A whole run: build the federation, train it round by round, record it, survive being stopped."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from elsa.config.schema import Config
from elsa.engine.build import build_federation, digests_of, open_sources
from elsa.engine.federation import Federation, shelved
from elsa.engine.machine import prepare
from elsa.engine.planner import Planner, planner_of
from elsa.engine.provenance import check_unchanged, new_manifest
from elsa.engine.public import check_public
from elsa.engine.recording import recorded
from elsa.engine.runner import Listener, Runner
from elsa.engine.simulate import Simulation
from elsa.engine.timeline import Timeline, rows_of
from elsa.record.checkpoint import load_checkpoint
from elsa.record.directory import RunDirectory
from elsa.record.timeline import TimelineFile

RUNS = Path("runs")
"""Where runs go unless told otherwise."""


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        directory: everything it wrote.
        summary: what its summary.json holds.
    """

    directory: Path
    summary: Mapping[str, Any]


def run(
    config: Config,
    *,
    out: Path | None = None,
    listen: Listener = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    trace: Path | None = None,
) -> Result:
    """Train a federation on this machine, from the beginning.

    Args:
        config: what to train.
        out: an empty or new folder for the run; None takes runs/NAME, numbered if taken.
        listen: told every event as it happens.
        say: told what takes time before the first event.
        stop: asked after every exchange; true ends the run, to be resumed later.
        trace: file for a Chrome trace of the rounds that this call trains, in simulated time.

    Raises:
        Interrupted: `stop` said so; the last checkpoint is kept.
        ElsaError: what else stands in the way, said for a person.
    """
    started = monotonic()
    prepare(config.run.threads)
    check_public(config, say)
    sources = open_sources(config, say)
    # Before the folder: nothing is left if one of them fails.
    federation = build_federation(config, sources)
    planner = planner_of(federation, sources)
    manifest = new_manifest(config, *digests_of(sources))
    if out is None:
        opened = RunDirectory.create_numbered(RUNS, config.run.name, manifest)
    else:
        opened = RunDirectory.create(out, manifest)
    with opened as directory:
        if planner is None:  # else the rounds write it, whenever splits change
            directory.write_plan(Planner(federation, sources, config).reckoned())
        watched = recorded(shelved(federation, directory.path), directory.path)
        with _drawn(watched, trace) as timeline:
            play = partial(Simulation, watched, timeline=timeline)
            runner = Runner(watched, sources, directory, listen, stop, play, planner)
            return Result(directory.path, runner.run(started))


def resume(
    path: Path,
    *,
    listen: Listener = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    trace: Path | None = None,
) -> Result:
    """Go on with a run from its last whole checkpoint; see `run`.

    On one machine the adapters end bit-identical to those of an uninterrupted run.

    Raises:
        RunError: `path` is no run directory, or its model or data have changed since.
        CheckpointError: it has checkpoints, and none of them is whole.
    """
    started = monotonic()
    with RunDirectory.open(path) as directory:
        config = Config.model_validate_json(json.dumps(directory.manifest.config))
        prepare(config.run.threads)
        checkpoint = load_checkpoint(path) if any(directory.checkpoints.iterdir()) else None
        check_public(config, say)
        sources = open_sources(config, say)
        check_unchanged(directory.manifest, *digests_of(sources))
        built = shelved(build_federation(config, sources), directory.path)
        federation = recorded(built, directory.path)
        planner = planner_of(federation, sources)
        with _drawn(federation, trace) as timeline:
            play = partial(Simulation, federation, timeline=timeline)
            runner = Runner(federation, sources, directory, listen, stop, play, planner)
            if checkpoint is None:
                directory.rewind()
            else:
                runner.restore(checkpoint)
            return Result(directory.path, runner.run(started))


@contextmanager
def _drawn(federation: Federation, path: Path | None) -> Iterator[Timeline | None]:
    """What the simulation draws its timeline on, if there is a file for it."""
    if path is None:
        yield None
        return
    with TimelineFile(path, rows_of(federation)) as file:
        yield Timeline(file)

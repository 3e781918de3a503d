"""A whole run: build the federation, train it round by round, record it, survive being stopped."""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from elsa.config.schema import Config
from elsa.engine.build import build_federation, digests_of, open_sources
from elsa.engine.machine import prepare
from elsa.engine.planner import Planner, planner_of
from elsa.engine.playing import EMBEDDED, Engine
from elsa.engine.provenance import check_unchanged, new_manifest
from elsa.engine.public import check_public
from elsa.engine.runner import Listener, Runner
from elsa.record.checkpoint import load_checkpoint
from elsa.record.directory import RunDirectory

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
    engine: Engine = EMBEDDED,
) -> Result:
    """Train a federation in simulation, from the beginning.

    Args:
        config: what to train.
        out: an empty or new folder for the run; None takes runs/NAME, numbered if taken.
        listen: told every event as it happens.
        say: told what takes time before the first event.
        stop: asked after every exchange; true ends the run, to be resumed later.
        trace: file for a Chrome trace of the rounds that this call trains, in simulated time.
        engine: what plays the rounds; this process unless told otherwise.

    Raises:
        Interrupted: `stop` said so; the last checkpoint is kept.
        ElsaError: what else stands in the way, said for a person.
    """
    started = monotonic()
    engine.check(config, trace)
    prepare(config.run.threads)
    check_public(config, say)
    sources = open_sources(config, say)
    with ExitStack() as running:
        ready = running.enter_context(engine.open(config, trace, say))
        # Before the folder: nothing is left if one of them fails.
        federation = build_federation(config, sources)
        planner = planner_of(federation, sources)
        manifest = new_manifest(config, *digests_of(sources))
        if out is None:
            opened = RunDirectory.create_numbered(RUNS, config.run.name, manifest)
        else:
            opened = RunDirectory.create(out, manifest)
        directory = running.enter_context(opened)
        if planner is None:  # else the rounds write it, whenever splits change
            directory.write_plan(Planner(federation, sources, config).reckoned())
        playing = ready(federation, directory)
        runner = Runner(playing.state, sources, directory, listen, stop, playing.rounds, planner)
        return Result(directory.path, runner.run(started))


def resume(
    path: Path,
    *,
    listen: Listener = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    trace: Path | None = None,
    engine: Engine = EMBEDDED,
) -> Result:
    """Go on with a run from its last whole checkpoint, on any engine; see `run`.

    On one machine the adapters end bit-identical to those of an uninterrupted run.

    Raises:
        RunError: `path` is no run directory, or its model or data have changed since.
        CheckpointError: it has checkpoints, and none of them is whole.
    """
    started = monotonic()
    with ExitStack() as running:
        directory = running.enter_context(RunDirectory.open(path))
        config = Config.model_validate_json(json.dumps(directory.manifest.config))
        engine.check(config, trace)
        prepare(config.run.threads)
        checkpoint = load_checkpoint(path) if any(directory.checkpoints.iterdir()) else None
        check_public(config, say)
        sources = open_sources(config, say)
        check_unchanged(directory.manifest, *digests_of(sources))
        ready = running.enter_context(engine.open(config, trace, say))
        federation = build_federation(config, sources)
        planner = planner_of(federation, sources)
        playing = ready(federation, directory)
        runner = Runner(playing.state, sources, directory, listen, stop, playing.rounds, planner)
        if checkpoint is None:
            directory.rewind()
        else:
            runner.restore(checkpoint)
        return Result(directory.path, runner.run(started))

"""The cloud as a process: it drives the rounds of several edge servers."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from time import monotonic

from elsa.config.schema import Config
from elsa.engine.build import assignment_of, cloud_of, device_names, initial_of
from elsa.engine.deploy.deployed import Deployed
from elsa.engine.deploy.rounds import CLOUD
from elsa.engine.deploy.side import CloudSide
from elsa.engine.deploy.supervision import Supervision
from elsa.engine.deploy.terms import check_deployable, frame_limit, told_sources
from elsa.engine.globalround import Watch
from elsa.engine.grouping import overseer_of
from elsa.engine.machine import prepare
from elsa.engine.parts import digests
from elsa.engine.provenance import check_unchanged, new_manifest
from elsa.engine.run import RUNS, Result
from elsa.engine.runner import Listener, Runner
from elsa.errors import ConfigError, Interrupted, RunError
from elsa.record.checkpoint import load_checkpoint
from elsa.record.directory import RunDirectory
from elsa.record.events import Event
from elsa.record.manifest import read_manifest
from elsa.roles.muster import Musterer
from elsa.wire.meter import Meter
from elsa.wire.rpc.client import Rpc
from elsa.wire.rpc.options import Timing
from elsa.wire.rpc.security import Security
from elsa.wire.transport import Layer, Link, Transport

_ROUND_MARGIN = 1.5
"""How much longer than a device may take, an edge may take for its whole answer."""
_UNWATCHED = Supervision()


def run_cloud(  # noqa: PLR0913
    config: Config,
    edges: Mapping[str, str] | str,
    security: Security,
    *,
    out: Path | None = None,
    watched: Supervision = _UNWATCHED,
    layers: Sequence[Layer] = (),
    listen: Listener = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Drive a run to its last round; see `elsa.engine.run.run` for what it leaves on disk.

    Args:
        config: of the run, alike at all parties.
        edges: HOST:PORT of each edge, by name; with Flower, the one where edges find the cloud.
        security: who the cloud is.
        out: folder of the run; one that was stopped is gone on with. None takes runs/NAME, new.
        watched: by whom it is watched over.
        layers: effects on what passes its links.
        listen: told every event as it happens.
        say: told what takes time before the first event.
        stop: asked twice a second.

    Raises:
        Interrupted: `stop` said so; the last checkpoint is kept.
        ElsaError: what else stands in the way, said for a person.
    """
    started = monotonic()
    check_deployable(config)
    if isinstance(edges, str):
        linked = _over_flower(config, edges, say)
    elif set(edges) == set(assignment_of(config)):
        linked = _direct(edges)
    else:
        raise ConfigError(
            f"addresses of {', '.join(sorted(edges)) or 'no edge'}, where federation.edges = "
            f"{config.federation.edges} needs those of {', '.join(assignment_of(config))}"
        )
    prepare(config.run.threads)
    sources = told_sources(config, say)
    adapters = initial_of(sources, config.run.seed)
    names, unknown = device_names(config), defaultdict[tuple[str, str], float](float)
    musterer = overseer_of(config, names, list(assignment_of(config)), unknown, Musterer)
    side = CloudSide(config, cloud_of(config, adapters, musterer), Meter(), musterer)
    size = sum(it.nbytes for it in adapters.values())
    limit = frame_limit(config, sources.model.checkpoint.hidden_size, size)
    patience = config.deploy
    timing = Timing(_ROUND_MARGIN * patience.round_seconds, patience.reconnect_seconds)
    played: list[Deployed] = []

    with ExitStack() as running:
        links = running.enter_context(linked(security, (side.meter, *layers), timing, limit))
        running.callback(lambda: played[0].close() if played else None)

        def play(watch: Watch) -> Deployed:
            played.append(Deployed(side, links, watch))
            return played[-1]

        if watched.metrics:
            from elsa.engine.deploy.metrics import CloudMetrics, scraped

            seen = CloudMetrics(side.meter)
            say(f"metrics at {running.enter_context(scraped(seen.registry, watched.metrics))}")
            listen = _both(seen.event, listen)
        opened = running.enter_context(
            _open(config, out, digests(sources.model.checkpoint.directory))
        )
        runner = Runner(side, sources, opened, listen, stop, play)
        if any(opened.checkpoints.iterdir()):
            runner.restore(load_checkpoint(opened.path))
        else:
            opened.rewind()
        watched.ready(True)
        running.callback(watched.ready, False)
        try:
            summary = runner.run(started)
        except Interrupted as error:
            raise Interrupted(
                f"stopped in round {side.cloud.round + 1}; every round before it is kept, with its "
                f"adapters, in {opened.path}. Go on with the same command and --out {opened.path}"
            ) from error
        played[0].end()
        return Result(opened.path, summary)


def _both(one: Listener, other: Listener) -> Listener:
    def listen(event: Event) -> None:
        one(event)
        other(event)

    return listen


Linked = Callable[
    [Security, Sequence[Layer], Timing, int], AbstractContextManager[Mapping[str, Transport]]
]
"""Opens links to all edges: who the cloud is, effects on what passes, patience, largest frame."""


def _direct(edges: Mapping[str, str]) -> Linked:
    """A gRPC stream to each edge."""

    @contextmanager
    def linked(
        security: Security, layers: Sequence[Layer], timing: Timing, limit: int
    ) -> Iterator[Mapping[str, Transport]]:
        links = {
            name: Rpc(address, _link(name), security, layers, timing=timing, limit=limit)
            for name, address in edges.items()
        }
        try:
            yield links
        finally:
            for link in links.values():
                link.close()

    return linked


def _over_flower(config: Config, at: str, say: Callable[[str], None]) -> Linked:
    """Flower in between; every edge comes to `at`."""

    def linked(
        security: Security, layers: Sequence[Layer], timing: Timing, limit: int
    ) -> AbstractContextManager[Mapping[str, Transport]]:
        from elsa.engine.flower.cloud import flower_links

        links = [_link(name) for name in assignment_of(config)]
        return flower_links(at, security, links, layers, timing=timing, limit=limit, say=say)

    return linked


def _link(edge: str) -> Link:
    return Link("edge_cloud", edge, CLOUD)


def _open(config: Config, out: Path | None, model: Mapping[str, str]) -> RunDirectory:
    manifest = new_manifest(config, model, {})
    if out is None:
        return RunDirectory.create_numbered(RUNS, config.run.name, manifest)
    if not (out / "manifest.json").exists():
        return RunDirectory.create(out, manifest)
    before = read_manifest(out)
    check_unchanged(before, model, {})
    if before.config != manifest.config:
        raise RunError(f"{out}: is a run of another config; name a new folder with --out")
    if (out / "summary.json").exists():
        raise RunError(f"{out}: this run has ended; name a new folder with --out")
    return RunDirectory.open(out)

"""One edge server as a process."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cache, partial
from pathlib import Path

from torch import Tensor

from elsa.config.schema import Config
from elsa.core.split import Split
from elsa.engine.build import (
    Sources,
    assignment_of,
    device_names,
    edge_of,
    initial_of,
)
from elsa.engine.codecs import codecs_by, prepare_codecs
from elsa.engine.deploy.keep import Keeper, Kept
from elsa.engine.deploy.rounds import CLOUD, EdgeRounds
from elsa.engine.deploy.supervision import Supervision
from elsa.engine.deploy.terms import (
    check_deployable,
    check_terms,
    frame_limit,
    task_of,
    terms_of,
    told_sources,
)
from elsa.engine.directions import Directions, public_directions
from elsa.engine.machine import prepare
from elsa.engine.parts import ModelParts, Say, split_of
from elsa.engine.probes import open_probing
from elsa.engine.public import check_public
from elsa.engine.tasks import data_of
from elsa.errors import ConfigError
from elsa.wire.messages import Register, Welcome
from elsa.wire.rpc.security import Security
from elsa.wire.rpc.server import RpcServer, Watch
from elsa.wire.transport import Handler

_LAST_WORDS = 2.0
"""Seconds for answers on their way when the server ends."""
_UNWATCHED = Supervision()
_log = logging.getLogger(__name__)


def run_edge(
    config: Config,
    listen: str,
    security: Security,
    *,
    cloud: str = "",
    watched: Supervision = _UNWATCHED,
    state: Path | None = None,
    say: Say = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Serve devices and the cloud until the cloud says that the run is over, or `stop` does.

    Any device of the run may come; the cloud says which ones take part here.

    Args:
        config: of the run, alike at all parties.
        listen: HOST:PORT.
        security: who this edge is.
        cloud: HOST:PORT of the cloud, where Flower is the link; else the cloud comes to `listen`.
        watched: by whom it is watched over.
        state: folder where it keeps the optimizer state of its part of the model; None keeps none.
        say: told what takes time, and where it listens.
        stop: asked twice a second.

    Raises:
        ElsaError: what stands in the way, said for a person.
    """
    check_deployable(config)
    prepare(config.run.threads)
    name = security.name
    _check_name(config, name)
    sources = _sources(config, say)
    models = {task.name: task.model for task in sources.tasks}
    model, hidden = sources.model, sources.model.checkpoint.hidden_size
    axes = _axes(config, sources)
    directions = Directions(axes.__getitem__, hidden)
    codecs_of = codecs_by(config, hidden, directions)
    labels = {task: rows.labels for task, rows in data_of(config).items()}
    ours = {task: terms_of(config, models[task], labels[task]) for task in models}
    roster = device_names(config)

    def welcome(peer: str, request: Register) -> Welcome:
        check_terms(ours[task_of(config, peer)], request.terms, name, peer)
        return Welcome(axes)

    _load_part(model, split_of(config, model.checkpoint.blocks))
    limit = frame_limit(config, hidden, _size(initial_of(sources, config.run.seed)))
    probing = cache(partial(open_probing, config, models, sources.tokenizer))
    edge = edge_of(config, model, name, codecs_of, probing)
    keeper = Keeper(state, name, next(iter(ours.values())))
    edge.restore(keeper.load().tensors, {})
    rounds = EdgeRounds(
        edge, roster, welcome, config.deploy, lambda it: keeper.save(Kept(it.moments()))
    )
    handle: Handler = rounds.handle
    watch = Watch(rounds.began, rounds.back, rounds.left, rounds.lose)
    with ExitStack() as running:
        if watched.metrics:
            from elsa.engine.deploy.metrics import EdgeMetrics, scraped

            seen = EdgeMetrics(rounds)
            handle, watch = seen.observe(handle, watch)
            say(f"metrics at {running.enter_context(scraped(seen.registry, watched.metrics))}")
        server = RpcServer(
            handle,
            listen,
            security,
            callers=_callers(config),
            limit=limit,
            watch=watch,
            ahead=config.train.in_flight,
        )
        server.start()
        say(f"{name} listens at {server.address} for {len(roster)} devices and the cloud")
        watched.ready(True)
        over = False
        try:
            with _cloud_of(config, security, cloud, handle, limit, say) as farewell:
                while not over and not stop():
                    over = rounds.wait_for_end(0.5)
                if over:
                    farewell()
        finally:
            watched.ready(False)
            left = rounds.under_way
            rounds.close()
            server.stop(_LAST_WORDS)
    say(f"{name}: the run is over" if over else _lost(name, left))


def _sources(config: Config, say: Say) -> Sources:
    """What the edge is built from; the axes of its codecs need public text."""
    check_public(config, say)
    sources = told_sources(config, say)
    prepare_codecs(config.wire, say)
    return sources


def _callers(config: Config) -> list[str]:
    """Who may call the server: any device; the cloud, unless it calls over Flower."""
    return device_names(config) + ([CLOUD] if config.deploy.link == "grpc" else [])


def _size(adapters: Mapping[str, Tensor]) -> int:
    return sum(it.nbytes for it in adapters.values())


def _load_part(model: ModelParts, split: Split) -> None:
    """Read the edge's part before the first device comes, if the edge has one."""
    if split.trunk:
        (model.end if split.head_at_edge else model.trunk)(split)


def _check_name(config: Config, name: str) -> None:
    edges = assignment_of(config)
    if name not in edges:
        raise ConfigError(
            f"'{name}' is no edge of federation.edges = {config.federation.edges}; "
            f"allowed: {', '.join(edges)}"
        )


def _lost(name: str, left: str) -> str:
    """What a stopped edge leaves behind, for people."""
    lost = f"what {left} had done so far, and the " if left else "the "
    return (
        f"{name} stopped; the cloud keeps every finished round. Lost here: {lost}moments of its "
        "devices' optimizers. Started again, it takes the round's order anew"
    )


def _cloud_of(
    config: Config, security: Security, cloud: str, handle: Handler, limit: int, say: Say
) -> AbstractContextManager[Callable[[], None]]:
    """What lets the cloud call: Flower, or nothing besides the server that it calls itself.

    Gives what to do before the end, once the cloud has said that the run is over.
    """
    if config.deploy.link == "grpc":
        return nullcontext(lambda: None)
    from elsa.engine.flower.edge import flower_caller

    return flower_caller(cloud, security, CLOUD, handle, limit=limit, say=say)


def _axes(config: Config, sources: Sources) -> dict[str, Tensor]:
    """The public axes [D, R] that the codecs of this config turn onto, by hop."""
    model = sources.model
    public = public_directions(config, model, sources.tokenizer)
    wire = config.wire.model_copy(update={"folder": ""})
    in_memory = config.model_copy(update={"wire": wire})
    codecs_by(in_memory, model.checkpoint.hidden_size, public)("")
    axes = {hop: public.first(hop, rank) for hop, rank in public.asked.items()}
    model.segments.cache_clear()  # an edge holds no bottom and no top
    return axes

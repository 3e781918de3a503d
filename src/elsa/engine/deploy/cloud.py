"""The cloud as a process: it drives the rounds of several edge servers."""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from torch import Tensor

from elsa.config.schema import Config
from elsa.core.score import Tally
from elsa.data.table import Table
from elsa.engine.build import Sources, assignment_of, cloud_of
from elsa.engine.deploy.rounds import CLOUD
from elsa.engine.deploy.supervision import Supervision
from elsa.engine.deploy.terms import check_deployable, frame_limit
from elsa.engine.machine import prepare
from elsa.engine.parts import Text, digests, load_model, model_directory
from elsa.engine.provenance import check_unchanged, new_manifest
from elsa.engine.run import RUNS, Result
from elsa.engine.runner import Listener, Runner
from elsa.engine.simulate import Watch
from elsa.engine.tasks import TaskParts
from elsa.errors import ConfigError, ElsaError, Interrupted, LinkError, RunError
from elsa.model.segments import initial_adapters
from elsa.model.tokenizer import load_tokenizer
from elsa.record.checkpoint import load_checkpoint
from elsa.record.directory import RunDirectory
from elsa.record.events import Event
from elsa.record.manifest import read_manifest
from elsa.roles.cloud import Cloud, tallies
from elsa.roles.exchange import expect
from elsa.wire.messages import DeviceReport, EdgeScores, EdgeUpdate, Message, Task
from elsa.wire.meter import Meter
from elsa.wire.rpc.client import Rpc
from elsa.wire.rpc.options import Timing
from elsa.wire.rpc.security import Security
from elsa.wire.transport import Link, Transport

_ROUND_MARGIN = 1.5
"""How much longer than a device may take, an edge may take for its whole answer."""
_PAUSE = 0.5
"""Seconds before an edge that went away is asked again."""
_UNWATCHED = Supervision()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CloudSide:
    """What the cloud holds of a federation; `Runner` says what it is for."""

    config: Config
    cloud: Cloud
    meter: Meter

    def poisoned(self, round_: int) -> frozenset[str]:  # noqa: ARG002
        """None that the cloud knows of."""
        return frozenset()

    def tensors(self) -> dict[str, Tensor]:
        """The global adapters, and what the cloud's optimizer remembers."""
        held = {f"global/{name}": value for name, value in self.cloud.adapters.items()}
        return held | {f"server/{name}": value for name, value in self.cloud.moments().items()}

    def positions(self) -> dict[str, int]:
        """None: how far a device is, the device knows."""
        return {}

    def restore(
        self, round_: int, tensors: Mapping[str, Tensor], positions: Mapping[str, int]
    ) -> None:
        """Go on from what `tensors` gave before this round."""
        assert not positions
        found: dict[str, dict[str, Tensor]] = {"global": {}, "server": {}}
        for key, value in tensors.items():
            kind, _, name = key.partition("/")
            found[kind][name] = value
        ordered = {name: found["global"][name] for name in self.cloud.adapters}
        self.cloud.restore(ordered, round_, found["server"])


class Deployed:
    """The rounds of edges that are elsewhere, asked all at once.

    Attributes:
        seconds: none; nothing is simulated.
    """

    seconds = 0.0

    def __init__(self, side: CloudSide, links: Mapping[str, Transport], watch: Watch) -> None:
        """Set up with a link to each edge, by name."""
        self._side = side
        self._links = links
        self._watch = watch

    def train_round(self) -> list[DeviceReport]:
        """One global round; an edge that does not answer counts nothing."""
        cloud = self._side.cloud
        orders = cloud.orders()
        answers = self._ask(orders)
        for name, order in orders.items():  # in a fixed order: sums do not depend on who was first
            answer = answers[name]
            try:
                if isinstance(answer, ElsaError):
                    raise answer
                cloud.receive(name, expect(EdgeUpdate, answer))
            except ElsaError as error:
                reason = f"{name}: {type(error).__name__}: {error}"
                _log.warning("round %d without %s", order.round, reason)
                lost = tuple(DeviceReport(it, 0, 0, 0.0, reason) for it in order.devices)
                cloud.receive(name, EdgeUpdate(order.round, cloud.adapters, 0.0, lost))
        return cloud.close_round()

    def evaluate(self) -> dict[str, Tally]:
        """What each device counts with the global adapters."""
        meter = self._side.meter
        meter.phase = "evaluate"
        try:
            answers = self._ask(self._side.cloud.evaluation_orders({}))
        finally:
            meter.phase = "train"
        heard = [it for it in answers.values() if isinstance(it, EdgeScores)]
        counted = tallies(heard)
        for edge, devices in self._side.cloud.assignment.items():
            for device in devices:
                if device not in counted:
                    self._watch.unheard(edge, device, f"no score came; the log of {edge} says why")
        return counted

    def end(self) -> None:
        """Tell the edges, and through them the devices, that the run is over."""
        for name, link in self._links.items():
            try:
                link.call(Task("end", 0, 0))
            except ElsaError as error:
                _log.warning("%s could not be told that the run is over: %s", name, error)

    def _ask(self, orders: Mapping[str, Message]) -> dict[str, Message | ElsaError]:
        """The answer of each edge, or why there is none.

        An edge that goes away is given its order again when it is back: it begins it anew.
        """
        until, over = monotonic() + self._side.config.deploy.round_seconds, threading.Event()

        def ask(name: str, order: Message) -> Message | ElsaError:
            while True:
                try:
                    return self._links[name].call(order)
                except LinkError as error:
                    if monotonic() > until or over.wait(_PAUSE):
                        return error
                    _log.warning("%s; asking again", error)
                except ElsaError as error:
                    return error

        pool = ThreadPoolExecutor(len(orders), "edges")
        try:
            coming: dict[Future[Message | ElsaError], str] = {
                pool.submit(ask, name, order): name for name, order in orders.items()
            }
            left = set(coming)
            while left:
                left -= wait(left, timeout=0.5, return_when=FIRST_COMPLETED).done
                self._watch.tick()
        finally:
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)
        return {name: it.result() for it, name in coming.items()}


def run_cloud(
    config: Config,
    edges: Mapping[str, str],
    security: Security,
    *,
    out: Path | None = None,
    watched: Supervision = _UNWATCHED,
    listen: Listener = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Drive a run to its last round; see `elsa.engine.run.run` for what it leaves on disk.

    Args:
        config: of the run, alike at all parties.
        edges: HOST:PORT of each edge, by name.
        security: who the cloud is.
        out: folder of the run; one that was stopped is gone on with. None takes runs/NAME, new.
        watched: by whom it is watched over.
        listen: told every event as it happens.
        say: told what takes time before the first event.
        stop: asked twice a second.

    Raises:
        Interrupted: `stop` said so; the last checkpoint is kept.
        ElsaError: what else stands in the way, said for a person.
    """
    started = monotonic()
    check_deployable(config)
    if set(edges) != set(assignment_of(config)):
        raise ConfigError(
            f"addresses of {', '.join(sorted(edges)) or 'no edge'}, where federation.edges = "
            f"{config.federation.edges} needs those of {', '.join(assignment_of(config))}"
        )
    prepare(config.run.threads)
    labels = tuple(config.data.labels)
    directory = model_directory(config.model.path, say)
    model = load_model(config, len(labels), directory)
    nothing = Table((), label_names=labels)  # no text comes here
    sources = Sources((TaskParts("", Text(nothing, nothing), model),), load_tokenizer(directory))
    adapters = initial_adapters(model.checkpoint, model.task, model.lora, config.run.seed)
    if config.cluster.strategy != "none" or config.cluster.trust:
        raise ConfigError(
            f"cluster.strategy = '{config.cluster.strategy}', cluster.trust = "
            f"{str(config.cluster.trust).lower()}: devices are watched in simulations only so far; "
            "set 'none' and false"
        )
    side = CloudSide(config, cloud_of(config, adapters), Meter())
    limit = frame_limit(
        config,
        model.checkpoint.hidden_size,
        sum(it.nbytes for it in adapters.values()),
    )
    patience = config.deploy
    timing = Timing(_ROUND_MARGIN * patience.round_seconds, patience.reconnect_seconds)
    links = {
        name: Rpc(
            address,
            Link("edge_cloud", name, CLOUD),
            security,
            (side.meter,),
            timing=timing,
            limit=limit,
        )
        for name, address in edges.items()
    }
    played: list[Deployed] = []

    def play(watch: Watch) -> Deployed:
        played.append(Deployed(side, links, watch))
        return played[-1]

    with ExitStack() as running:
        for link in links.values():
            running.callback(link.close)
        if watched.metrics:
            from elsa.engine.deploy.metrics import CloudMetrics, scraped

            seen = CloudMetrics(side.meter)
            say(f"metrics at {running.enter_context(scraped(seen.registry, watched.metrics))}")
            listen = _both(seen.event, listen)
        opened = running.enter_context(_open(config, out, digests(directory)))
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

"""The cloud as a process: it drives the rounds of several edge servers."""

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from torch import Tensor

from elsa.config.schema import Config
from elsa.core.score import Tally
from elsa.engine.build import assignment_of, cloud_of, device_names, initial_of
from elsa.engine.deploy.asking import Asking
from elsa.engine.deploy.rounds import CLOUD
from elsa.engine.deploy.supervision import Supervision
from elsa.engine.deploy.terms import check_deployable, frame_limit, told_sources
from elsa.engine.grouping import overseer_of
from elsa.engine.machine import prepare
from elsa.engine.parts import digests, model_directory
from elsa.engine.provenance import check_unchanged, new_manifest
from elsa.engine.run import RUNS, Result
from elsa.engine.runner import Listener, Runner
from elsa.engine.simulate import Watch
from elsa.errors import ConfigError, ElsaError, Interrupted, RunError
from elsa.record.checkpoint import load_checkpoint
from elsa.record.directory import RunDirectory
from elsa.record.events import Event
from elsa.record.manifest import read_manifest
from elsa.roles.cloud import Cloud, tallies
from elsa.roles.exchange import expect
from elsa.roles.muster import Found, Musterer
from elsa.wire.checks import plain
from elsa.wire.messages import DeviceReport, EdgeScores, EdgeUpdate, Message, RoundOrder, Task
from elsa.wire.meter import Meter
from elsa.wire.places import Move, Presence, RollCall
from elsa.wire.rpc.client import Rpc
from elsa.wire.rpc.options import Timing
from elsa.wire.rpc.security import Security
from elsa.wire.transport import Layer, Link, Transport
from elsa.wire.watching import Behaviours

_ROUND_MARGIN = 1.5
"""How much longer than a device may take, an edge may take for its whole answer."""
_PAUSE = 0.5
"""Seconds between roll calls while somebody is waited for."""
_GLANCE = {"grpc": 2.0, "flower": 30.0}
"""Seconds that an edge which was not there last time has to answer a roll call, by link."""
_BACK = {"grpc": 0.0, "flower": 90.0}
"""Seconds that whoever was there is waited for at least: Flower needs 61 to let an edge in again,
and up to 30 for a message."""
_UNWATCHED = Supervision()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CloudSide:
    """What the cloud holds of a federation; `Runner` says what it is for."""

    config: Config
    cloud: Cloud
    meter: Meter
    musterer: Musterer

    @property
    def edges(self) -> list[str]:
        """Names of all edges."""
        return list(assignment_of(self.config))

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
        self._patience = side.config.deploy
        self._glance = _GLANCE[self._patience.link]
        self._back = max(self._patience.reconnect_seconds, _BACK[self._patience.link])
        self._asking = Asking(links)
        self._watch = watch
        self._edges = set(links)  # those that were there last time; at first, all are expected
        self._gone: set[str] = set()
        self._devices = set(device_names(side.config))

    def gather(self) -> None:
        """Find out who is there for the next round, and where each device belongs.

        Whoever was there last time is waited for a while; if there is nobody, for longer.

        Raises:
            RunError: no device came for as long as a round may take.
        """
        side, patience = self._side, self._patience
        began = monotonic()
        found = self._seek(began + self._back, lambda it: self._devices <= it.keys())
        while not found:
            if monotonic() - began > patience.round_seconds:
                raise RunError(
                    f"no device was at any edge for {patience.round_seconds:g} s; what was trained "
                    "is kept: start the cloud again with the same --out"
                )
            _log.warning("no device is at any edge; waiting")
            until = monotonic() + self._back
            found = self._seek(until, lambda it: self._devices <= it.keys())
        round_, capacity = side.cloud.round, side.config.cluster.capacity
        places = side.musterer.muster(round_, found, self._edges, capacity)
        side.cloud.assignment = side.musterer.assignment()
        if places:
            self._watch.placed(places)
        self._send(found)
        self._devices = set(found)

    def train_round(self) -> list[DeviceReport]:
        """One global round; an edge that does not answer counts nothing."""
        cloud = self._side.cloud
        orders = cloud.orders()
        asked: Mapping[str, Message] = orders
        while asked:
            behaviours: dict[str, Behaviours] = {}
            answers = self._ask(asked)
            for name, answer in answers.items():  # in a fixed order: sums do not depend on time
                try:
                    if isinstance(answer, Behaviours):
                        behaviours[name] = answer
                    elif isinstance(answer, ElsaError):
                        raise answer
                    else:
                        cloud.receive(name, expect(EdgeUpdate, answer))
                except ElsaError as error:
                    self._without(name, orders[name], error)
            asked, standings = cloud.judge(behaviours) if behaviours else ({}, ())
            if standings:
                self._watch.judged(next(iter(behaviours.values())).edge_round, standings)
        reports = cloud.close_round()
        regrouping = cloud.regroup()
        if regrouping is not None:
            self._watch.regrouped(regrouping)
        return reports

    def evaluate(self) -> dict[str, Tally]:
        """What each device counts with the global adapters, at the edge where it belongs now."""
        self.gather()
        meter = self._side.meter
        meter.phase = "evaluate"
        try:
            orders = self._side.cloud.evaluation_orders({})
            answers = self._ask({edge: it for edge, it in orders.items() if it.devices})
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
        until = monotonic() + self._back

        def late(*_: object) -> str:
            return "did not answer in time" if monotonic() > until else ""

        told = self._asking.ask(dict.fromkeys(self._side.edges, Task("end", 0, 0)), late)
        for name, answer in told.items():
            if isinstance(answer, ElsaError):
                _log.warning("%s could not be told that the run is over: %s", name, answer)

    def close(self) -> None:
        """Ask nothing more."""
        self._asking.close()

    def _without(self, name: str, order: RoundOrder, error: ElsaError) -> None:
        """Close a round without an edge."""
        reason = f"{name}: {type(error).__name__}: {error}"
        _log.warning("round %d without %s", order.round, reason)
        lost = tuple(DeviceReport(it, 0, 0, 0.0, plain(reason)) for it in order.devices)
        cloud = self._side.cloud
        cloud.receive(name, EdgeUpdate(order.round, cloud.adapters, 0.0, lost))

    def _ask(self, orders: Mapping[str, Message]) -> dict[str, Message | ElsaError]:
        """The answer of each edge to an order, or why there is none."""
        patience, enough = self._patience, math.ceil(self._patience.edge_quorum * len(orders))
        since = [math.inf]

        def give_up(_: object, answers: Mapping[str, Message | ElsaError]) -> str:
            if sum(not isinstance(it, ElsaError) for it in answers.values()) >= enough:
                since[0] = min(since[0], monotonic())
            if monotonic() - since[0] <= patience.straggler_seconds:
                return ""
            return (
                f"was not done {patience.straggler_seconds:g} s after {patience.edge_quorum:.0%} "
                "of the edges were"
            )

        return self._asking.ask(orders, give_up, self._watch.tick)

    def _seek(
        self, until: float, enough: Callable[[Mapping[str, Found]], bool]
    ) -> dict[str, Found]:
        """The devices that are there; waits until they are enough, or until some time."""
        found: dict[str, Found] = {}
        while not (found := self._roll(until)) or not enough(found):
            if monotonic() > until:
                break
            sleep(_PAUSE)
        return found

    def _roll(
        self, until: float, moves: Mapping[str, Sequence[Move]] | None = None
    ) -> dict[str, Found]:
        """Ask who is there once; an edge that was not there last time has a glance only."""
        expected, glanced = self._edges or set(self._side.edges), monotonic() + self._glance

        def give_up(left: Collection[str], _: object) -> str:
            now = monotonic()
            waiting = now <= glanced or (expected.intersection(left) and now <= until)
            return "" if waiting else "did not answer the roll call in time"

        calls = {it: RollCall(tuple((moves or {}).get(it, ()))) for it in self._side.edges}
        answers = self._asking.ask(calls, give_up, self._watch.tick)
        self._edges = {name for name, it in answers.items() if isinstance(it, Presence)}
        for name in set(calls) - self._edges - self._gone:
            _log.warning("%s is not there: %s", name, answers[name])
        for name in self._gone & self._edges:
            _log.info("%s is there", name)
        self._gone = set(calls) - self._edges
        heard: dict[str, tuple[float, Found]] = {}
        for name, answer in answers.items():
            for it in answer.present if isinstance(answer, Presence) else ():
                found = Found(name, {way.edge: way.seconds / 2 for way in it.routes})
                if it.silent < heard.get(it.device, (math.inf,))[0]:  # two claim it: the last heard
                    heard[it.device] = (it.silent, found)
        return {device: heard[device][1] for device in sorted(heard)}

    def _send(self, found: Mapping[str, Found]) -> None:
        """Have devices that belong elsewhere go there, and wait a while for them to arrive."""
        placed, until = self._side.musterer.placed, monotonic() + self._back
        going = {name for name, it in found.items() if placed[name] not in ("", it.edge)}
        while going and monotonic() <= until:
            moves: dict[str, list[Move]] = {}
            for name in going & found.keys():
                moves.setdefault(found[name].edge, []).append(Move(name, placed[name]))
            self._roll(until, moves)
            sleep(_PAUSE)
            found = self._roll(until)
            going -= {name for name, it in found.items() if it.edge == placed[name]}


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
    directory = model_directory(config.model.path, say)
    sources = told_sources(config, directory)
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

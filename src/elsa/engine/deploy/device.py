"""One device as a process: a plain client of its edge server."""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import torch
from torch import Tensor

from elsa.config.schema import Config
from elsa.core.cost import FLOAT32
from elsa.core.secret import SecretSeed
from elsa.data.batches import Examples
from elsa.data.sources import load_table
from elsa.engine.build import assignment_of, device_names, device_of, halves
from elsa.engine.codecs import codecs_by, prepare_codecs
from elsa.engine.conversation import Conversation
from elsa.engine.deploy.keep import Keeper, Kept
from elsa.engine.deploy.reach import nearest, survey
from elsa.engine.deploy.terms import (
    check_deployable,
    frame_limit,
    task_of,
    terms_of,
    told_sources,
)
from elsa.engine.deploy.tokens import showing
from elsa.engine.directions import Directions
from elsa.engine.machine import give_back, prepare
from elsa.engine.parts import Say, columns_of, encode, split_of
from elsa.engine.tasks import data_of
from elsa.errors import ConfigError, LinkError, ProtocolError
from elsa.model.segments import adapter_shapes
from elsa.roles.device import Device
from elsa.roles.exchange import Exchange, expect
from elsa.wire.messages import Next, Register, Task, Welcome
from elsa.wire.rpc.client import Rpc
from elsa.wire.rpc.options import Timing
from elsa.wire.rpc.security import Security
from elsa.wire.transport import Layer, Link, Transport

_PAUSE = 0.5
"""Seconds before a device knocks again at an edge that sent it away or is not there."""
_GLANCE = Timing(answer=3.0, reconnect=1.0)
"""How long an edge has to answer a ping."""
_END = "."
"""No edge's name: the run is over."""
_log = logging.getLogger(__name__)


def run_device(
    config: Config,
    edges: Mapping[str, str],
    data: Path,
    security: Security,
    *,
    state: Path | None = None,
    layers: Sequence[Layer] = (),
    say: Say = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Take part until an edge says that the run is over, or `stop` does.

    A broken link is mended; an edge that restarts is registered with again; where it stays away,
    or the cloud says so, the device goes to another edge that it knows.

    Args:
        config: of the run, alike at all parties.
        edges: HOST:PORT of the edge servers that it may go to, by name.
        data: file of this device's rows; they are read here and never leave.
        security: who this device is.
        state: folder where it keeps its optimizer state; None keeps none.
        layers: effects on what passes its links.
        say: told what happens.
        stop: asked after every exchange.

    Raises:
        LinkError: no edge has let it in for as long as a round may take.
        ElsaError: what else stands in the way for good, said for a person.
    """
    check_deployable(config)
    prepare(config.run.threads, sparing=config.deploy.sparing)
    name = security.name
    wanted = home_of(config, name)
    unknown = sorted(edges.keys() - assignment_of(config).keys())
    if unknown or not edges:
        raise ConfigError(
            f"'{', '.join(unknown)}' is no edge of federation.edges = {config.federation.edges}; "
            f"allowed: one or more of {', '.join(assignment_of(config))}"
        )
    if config.split.layout == "two-part":
        say(f"{name}: split.layout = 'two-part' shows the edge the label of every row")
    home = _Home(config, name, data, state, say)
    patience = Timing(config.deploy.answer_seconds, config.deploy.reconnect_seconds)

    def link(edge: str, timing: Timing = patience, own: Sequence[Layer] = tuple(layers)) -> Rpc:
        between = Link("device_edge", name, edge)
        return Rpc(edges[edge], between, security, own, timing=timing, limit=home.limit)

    patient_until = monotonic() + config.deploy.reconnect_seconds
    heard = monotonic()
    while not stop():
        if monotonic() - heard > config.deploy.round_seconds:
            raise LinkError(
                f"{name}: none of {', '.join(edges)} has let it in for "
                f"{config.deploy.round_seconds:g} s (deploy.round_seconds): the run is over, or "
                f"cannot be reached. Its rows lie in {data} as before; start it again if the run "
                "goes on"
            )
        routes = survey({edge: partial(link, edge, _GLANCE, ()) for edge in edges})
        at = nearest(routes, wanted)
        if wanted in edges and at != wanted and monotonic() < patient_until:
            say(f"{name}: {wanted} does not answer yet; trying again")
            sleep(_PAUSE)
            continue
        if not at:
            say(f"{name}: none of {', '.join(edges)} answers; trying again")
            sleep(_PAUSE)
            continue
        with closing(link(at)) as open_:
            try:
                answer = open_.call(Register(home.terms, tuple(routes.values())))
                home.settle(expect(Welcome, answer).axes)
                say(f"{name} is at {at}, {edges[at]}, with {len(home.rows)} rows")
                patient_until = 0.0
                try:
                    wanted = _attend(home, open_, stop) or at
                finally:
                    heard = monotonic()
                if wanted == _END:
                    say(f"{name}: the run is over")
                    return
            except LinkError as error:
                wanted = at
                say(f"{name}: {error}; trying again")
                sleep(_PAUSE)
    kept = "" if state else ", and its optimizer's moments"
    say(
        f"{name} stopped; its rows lie in {data} as before. Lost: its part of a round under way"
        f"{kept}. Started again, it takes part from the next round"
    )


def home_of(config: Config, device: str) -> str:
    """The edge that a device is dealt to."""
    for edge, devices in assignment_of(config).items():
        if device in devices:
            return edge
    raise ConfigError(
        f"'{device}' is no device of federation.devices = {config.federation.devices}; allowed: "
        f"{device_names(config)[0]} to {device_names(config)[-1]}"
    )


def _attend(home: "_Home", link: Transport, stop: Callable[[], bool]) -> str:
    """Do one task after the other; the edge to go to next, `_END`, or empty if `stop` said so.

    Raises:
        LinkError: the link or its session is gone; whatever was under way is lost.
    """
    device = home.device
    while not stop():
        task = expect(Task, link.call(Next()))
        exchange: Exchange[object]
        match task.what:
            case "end":
                return _END
            case "wait":
                continue
            case "move":
                _log.info("sent to %s", task.edge)
                return task.edge
            case "train":
                exchange = device.train(task.round, task.edge_round)
            case "evaluate":
                exchange = device.evaluate(task.round)
            case _:
                raise ProtocolError(f"the edge asks for '{task.what}', which is nothing known here")
        where = f"{task.what} {task.round}.{task.edge_round}"
        _log.info("%s begins", where)
        talk = Conversation(showing(exchange), link)
        while not talk.over and not stop():
            talk.advance()
        if isinstance(talk.error, LinkError):
            raise talk.error
        if talk.error is not None:
            _log.warning("%s ended early: %s: %s", where, type(talk.error).__name__, talk.error)
        else:
            if task.what == "train":
                home.keep(task.round)
            _log.info("%s: %s", where, talk.result)
    return ""


class _Home:
    """What a device has of its own, whichever edge it is at.

    Attributes:
        terms: what it takes for granted.
        rows: its own, encoded.
        limit: bytes of the largest frame.
    """

    def __init__(self, config: Config, name: str, data: Path, state: Path | None, say: Say) -> None:
        self._config, self._name = config, name
        sources = told_sources(config, say)
        prepare_codecs(config.wire, say)
        task = task_of(config, name)
        self._rows_of = data_of(config)[task]
        self._model = next(it.model for it in sources.tasks if it.name == task)
        tokenizer = sources.tokenizer
        self._pad_id = tokenizer.pad_id
        table = load_table(str(data), columns_of(config, self._rows_of), say=say)
        if config.model.task == "classification" and table.label is None:
            raise ConfigError(f"{data} has no column '{self._rows_of.label}' (data.label)")
        self.rows: Examples = encode(table, tokenizer, config)
        shapes = {
            name: shape
            for it in sources.tasks
            for name, shape in adapter_shapes(
                it.model.checkpoint, it.model.task, it.model.lora
            ).items()
        }
        size = sum(FLOAT32 * shape.numel() for shape in shapes.values())
        del table, tokenizer, sources
        give_back()
        self.terms = terms_of(config, self._model, self._rows_of.labels)
        self._keeper = Keeper(state, name, self.terms)
        checkpoint = self._model.checkpoint
        self.limit = frame_limit(config, checkpoint.hidden_size, size, checkpoint.hidden_size)
        self._model.segments(split_of(config, checkpoint.blocks))
        give_back()
        self._secret = SecretSeed(secrets.token_bytes(32))
        self._axes: Mapping[str, Tensor] = {}
        self._device: Device | None = None

    @property
    def device(self) -> Device:
        """The device, once it is settled."""
        assert self._device is not None
        return self._device

    def settle(self, axes: Mapping[str, Tensor]) -> None:
        """Use the axes of the edge that it is at; go on with what it had learned before.

        Raises:
            ConfigError: axes are missing that its codecs need, or of another shape.
        """
        before = self._device
        if before is not None and _same(axes, self._axes):
            return

        hidden = self._model.checkpoint.hidden_size

        def axes_of(hop: str) -> Tensor:
            found = axes.get(hop)
            if found is None or found.shape[:1] != (hidden,) or found.ndim != 2:
                raise ConfigError(f"the edge sent no axes [{hidden}, R] for {hop}")
            return found.float()

        directions = Directions(axes_of, hidden)
        config, number = self._config, device_names(self._config).index(self._name)
        self._device = device_of(
            config,
            self._model,
            self._pad_id,
            halves(self.rows, self._rows_of.holdout_fraction, config.run.seed, number),
            codecs_by(config, hidden, directions)(self._name),
            self._name,
            number,
            self._secret,
        )
        self._axes = axes
        if before is not None:
            self._device.restore(before.moments(), {}, before.position)
        elif (kept := self._keeper.load()).numbers:
            self._device.restore(kept.tensors, {}, kept.numbers["position"])
            _log.info("goes on with what it learned up to round %d", kept.numbers["round"])

    def keep(self, round_: int) -> None:
        """Keep on disk what the device is to go on with when it is started again."""
        position = {"position": self.device.position, "round": round_}
        self._keeper.save(Kept(self.device.moments(), position))


def _same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)

"""One device as a process: a plain client of its edge server."""

import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from time import sleep

import torch
from torch import Tensor

from elsa.config.schema import Config
from elsa.core.cost import FLOAT32
from elsa.core.secret import SecretSeed
from elsa.core.split import Split
from elsa.data.batches import Examples
from elsa.data.sources import load_table
from elsa.engine.build import assignment_of, device_names, device_of, halves
from elsa.engine.codecs import hop_codecs, prepare_codecs
from elsa.engine.conversation import Conversation
from elsa.engine.deploy.terms import check_deployable, frame_limit, terms_of
from elsa.engine.directions import Directions
from elsa.engine.machine import give_back, prepare
from elsa.engine.parts import ModelParts, Say, columns_of, encode, load_model, model_directory
from elsa.errors import ConfigError, LinkError, ProtocolError
from elsa.model.segments import adapter_shapes
from elsa.model.tokenizer import load_tokenizer
from elsa.roles.device import Device
from elsa.roles.exchange import Exchange, expect
from elsa.wire.messages import Next, Register, Task, Welcome
from elsa.wire.rpc.client import Rpc
from elsa.wire.rpc.options import Timing
from elsa.wire.rpc.security import Security
from elsa.wire.transport import Link, Transport

_PAUSE = 0.5
"""Seconds before a device knocks again at an edge that sent it away or is not there."""
_log = logging.getLogger(__name__)


def run_device(
    config: Config,
    edge: str,
    data: Path,
    security: Security,
    *,
    say: Say = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Take part until the edge says that the run is over, or `stop` does.

    A broken link is mended; an edge that restarts is registered with again.

    Args:
        config: of the run, alike at all parties.
        edge: HOST:PORT of the edge server.
        data: file of this device's rows; they are read here and never leave.
        security: who this device is.
        say: told what happens.
        stop: asked after every exchange.

    Raises:
        ElsaError: what stands in the way for good, said for a person.
    """
    check_deployable(config)
    prepare(config.run.threads, sparing=config.deploy.sparing)
    name = security.name
    if name not in device_names(config):
        raise ConfigError(
            f"'{name}' is no device of federation.devices = {config.federation.devices}; allowed: "
            f"{device_names(config)[0]} to {device_names(config)[-1]}"
        )
    host = next(it for it, devices in assignment_of(config).items() if name in devices)
    home = _Home(config, name, data, say)
    link = Rpc(
        edge,
        Link("device_edge", name, host),
        security,
        timing=Timing(config.deploy.answer_seconds, config.deploy.reconnect_seconds),
        limit=home.limit,
    )
    try:
        while not stop():
            try:
                home.settle(expect(Welcome, link.call(Register(home.terms))).axes)
                say(f"{name} is at {host}, {edge}, with {len(home.rows)} rows")
                if _attend(home.device, link, stop):
                    say(f"{name}: the run is over")
                    return
            except LinkError as error:
                say(f"{name}: {error}; trying again")
                sleep(_PAUSE)
        say(
            f"{name} stopped; its rows lie in {data} as before. Lost: its part of a round under "
            "way, and its optimizer's moments. Started again, it takes part from the next round"
        )
    finally:
        link.close()


def _attend(device: Device, link: Transport, stop: Callable[[], bool]) -> bool:
    """Do one task after the other; whether the edge said that there are no more.

    Raises:
        LinkError: the link or its session is gone; whatever was under way is lost.
    """
    while not stop():
        task = expect(Task, link.call(Next()))
        exchange: Exchange[object]
        match task.what:
            case "end":
                return True
            case "wait":
                continue
            case "train":
                exchange = device.train(task.round, task.edge_round)
            case "evaluate":
                exchange = device.evaluate(task.round)
            case _:
                raise ProtocolError(f"the edge asks for '{task.what}', which is nothing known here")
        where = f"{task.what} {task.round}.{task.edge_round}"
        _log.info("%s begins", where)
        talk = Conversation(exchange, link)
        while not talk.over and not stop():
            talk.advance()
        if isinstance(talk.error, LinkError):
            raise talk.error
        if talk.error is not None:
            _log.warning("%s ended early: %s: %s", where, type(talk.error).__name__, talk.error)
        else:
            _log.info("%s: %s", where, talk.result)
    return False


class _Home:
    """What a device has of its own, whichever edge it is at.

    Attributes:
        terms: what it takes for granted.
        rows: its own, encoded.
        limit: bytes of the largest frame.
    """

    def __init__(self, config: Config, name: str, data: Path, say: Say) -> None:
        self._config, self._name = config, name
        prepare_codecs(config.wire, say)
        directory = model_directory(config.model.path, say)
        self._model: ModelParts = load_model(config, len(config.data.labels), directory)
        tokenizer = load_tokenizer(directory)
        self._pad_id = tokenizer.pad_id
        table = load_table(str(data), columns_of(config, config.data), say=say)
        if config.model.task == "classification" and table.label is None:
            raise ConfigError(f"{data} has no column '{config.data.label}' (data.label)")
        self.rows: Examples = encode(table, tokenizer, config)
        del table, tokenizer
        give_back()
        self.terms = terms_of(config, self._model, config.data.labels)
        checkpoint = self._model.checkpoint
        shapes = adapter_shapes(checkpoint, self._model.task, self._model.lora)
        size = sum(FLOAT32 * shape.numel() for shape in shapes.values())
        self.limit = frame_limit(config, checkpoint.hidden_size, size)
        self._model.segments(Split.of(checkpoint.blocks, config.split.bottom, config.split.top))
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
            if found is None or found.shape != (hidden, hidden) or found.dtype != torch.float32:
                raise ConfigError(f"the edge sent no axes [{hidden}, {hidden}] for {hop}")
            return found

        directions = Directions(axes_of, hidden)
        config, number = self._config, device_names(self._config).index(self._name)
        self._device = device_of(
            config,
            self._model,
            self._pad_id,
            halves(self.rows, config.data.holdout_fraction, config.run.seed, number),
            hop_codecs(config.wire, hidden, directions, self._name),
            self._name,
            number,
            self._secret,
        )
        self._axes = axes
        if before is not None:
            self._device.restore(before.moments(), {}, before.position)


def _same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)

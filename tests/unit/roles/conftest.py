"""A tiny random BERT, and the parties around it."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from elsa.core.codec import EXACT, Frame, HopCodecs, Identity, Packet
from elsa.core.split import Split
from elsa.data.batches import Examples
from elsa.model.checkpoint import Checkpoint, open_checkpoint
from elsa.model.segments import Trunk, build_bottom, build_top, build_trunk, initial_adapters
from elsa.model.tasks import Classification, LoraSpec
from elsa.roles.device import Device, DeviceSettings, Segments
from elsa.roles.edge import Edge
from elsa.roles.edgemodel import EdgeModel
from elsa.roles.exchange import Ahead, Due, Exchange
from elsa.roles.learner import OptimizerSettings
from elsa.roles.trunk import PerDeviceTrunk, SharedTrunk, TrunkAdapters
from elsa.wire.inprocess import InProcess
from elsa.wire.messages import (
    Accepted,
    Activations,
    EdgeUpdate,
    Gradients,
    Message,
    Ready,
    RoundOrder,
    Update,
)
from elsa.wire.transport import Link

Result = TypeVar("Result")
TASK = Classification(3, "mean")
LORA = LoraSpec(rank=2, alpha=4)


DEVICES = ("d0", "d1", "d2")
LENGTHS = (3, 1, 5)
STEPS = 2


class Puppet:
    """A device played by hand: hidden states and gradients drawn from its name and the step."""

    def __init__(
        self,
        world: "World",
        send: Callable[[Message], Message],
        name: str,
        cuts: tuple[int, int],
    ) -> None:
        self.world, self.send, self.name, self.cuts = world, send, name, cuts
        self.rows = 1 + int(name[1:])

    def values(self, step: int) -> Packet:
        generator = torch.Generator().manual_seed(100 * step + self.rows)
        values = torch.randn(sum(LENGTHS), self.world.hidden, generator=generator)
        return Identity().encode(values, Frame(LENGTHS))

    def ready(self, round_: int = 0, edge_round: int = 0) -> Ready:
        return Ready(round_, edge_round, *self.cuts)

    def forward(self, step: int = 0, training: bool = True) -> Activations:
        return Activations(step, training, LENGTHS, self.values(step))

    def backward(self, step: int = 0) -> Gradients:
        return Gradients(step, self.values(50 + step))

    def states(self, values: Tensor, lengths: tuple[int, ...] = LENGTHS, **odd: Any) -> Activations:
        """Hidden states of the first step, with something odd about them."""
        packet = Identity().encode(values, Frame(LENGTHS))
        return Activations(0, True, lengths, replace(packet, **odd))

    def update(self, edge_round: int = 0) -> Update:
        adapters = self.world.own(self.cuts, scale=1.0 + self.rows)
        return Update(0, edge_round, adapters, self.rows, 6, 0.5)

    def step(self, step: int) -> None:
        self.send(self.forward(step))
        self.send(self.backward(step))

    def train(self, edge_round: int = 0) -> None:
        self.send(self.ready(edge_round=edge_round))
        for step in range(STEPS):
            self.step(step)
        assert self.send(self.update(edge_round)) == Accepted()


class World:
    """What all parties are made of.

    Attributes:
        blocks, hidden, longest: M, D and the longest text in tokens.
        lengths, steps: tokens of each text of a puppet's batch; its local steps.
        optimizer: settings of everybody's optimizer.
        adapters: global adapters, far from their start, so that every gradient is there.
    """

    blocks, hidden, longest = 4, 8, 12
    lengths, steps = LENGTHS, STEPS
    optimizer = OptimizerSettings(learning_rate=1e-2, weight_decay=0.01, keep_moments=True)

    def __init__(self, checkpoint: Checkpoint, first: int = 0) -> None:
        """Adapters are in block `first` and above."""
        self.checkpoint = checkpoint
        self.lora = replace(LORA, first=first)
        generator = torch.Generator().manual_seed(5)
        self.adapters = {
            name: value + 0.3 * torch.randn(value.shape, generator=generator)
            for name, value in initial_adapters(checkpoint, TASK, self.lora, seed=1).items()
        }
        self.trunk: Callable[[Split], Trunk] = cache(
            lambda split: build_trunk(checkpoint, split, TASK, self.lora)
        )
        self.segments = cache(self._segments)

    def split(self, bottom: int, top: int) -> Split:
        return Split.of(self.blocks, bottom, top)

    def edge(
        self,
        trunks: TrunkAdapters | None = None,
        codecs: Callable[[], HopCodecs] = lambda: EXACT,
        in_flight: int = 1,
    ) -> Edge:
        parts = (self.blocks, self.hidden, self.longest, self.trunk)
        model = EdgeModel(*parts, seed=0, in_flight=in_flight)
        return Edge("edge-0", model, trunks or PerDeviceTrunk(self.optimizer), lambda _: codecs())

    def order(self, *devices: str, edge_rounds: int = 1) -> RoundOrder:
        return RoundOrder(0, edge_rounds, STEPS, devices or DEVICES, self.adapters)

    def puppet(self, edge: Edge, name: str = "d0", cuts: tuple[int, int] = (1, 1)) -> Puppet:
        return Puppet(self, lambda request: edge.handle(name, request), name, cuts)

    def linked(self, edge: Edge, name: str) -> Puppet:
        """A puppet behind a real link, whose refusals the edge acts on."""
        link = InProcess(edge.handle, Link("device_edge", name, edge.name), (), edge.lose)
        return Puppet(self, link.call, name, (1, 1))

    def alone(self, *names: str, shared: bool = False) -> EdgeUpdate:
        """A round of these puppets, step by step in turn, and of nobody else."""
        edge = self.edge((SharedTrunk if shared else PerDeviceTrunk)(self.optimizer))
        edge.open(self.order(*names))
        self.in_turn([self.puppet(edge, name) for name in names])
        return self.closed(edge)

    @staticmethod
    def in_turn(puppets: list[Puppet]) -> None:
        """An edge round of these puppets, step by step in turn."""
        for puppet in puppets:
            puppet.send(puppet.ready())
        for step in range(STEPS):
            for puppet in puppets:
                puppet.step(step)
        for puppet in puppets:
            puppet.send(puppet.update())

    @staticmethod
    def closed(edge: Edge) -> EdgeUpdate:
        """End the edge round and the order."""
        edge.close_edge_round()
        update = edge.close()
        assert isinstance(update, EdgeUpdate)
        return update

    def device(
        self,
        name: str,
        training: Examples,
        *,
        held_out: Examples | None = None,
        cuts: tuple[int, int] = (1, 1),
        seed: int = 0,
        optimizer: OptimizerSettings | None = None,
        codecs: HopCodecs = EXACT,
        in_flight: int = 1,
    ) -> Device:
        return Device(
            name,
            self.segments(self.split(*cuts)),
            training,
            held_out or Examples([], labels=np.array([], np.int64)),
            codecs,
            DeviceSettings(optimizer or self.optimizer, 4, 3, False, 0, seed, in_flight=in_flight),
        )

    def examples(self, rows: int, seed: int = 0) -> Examples:
        """Rows of 1 to 9 tokens, with labels."""
        rng = np.random.default_rng(seed)
        return Examples(
            [rng.integers(3, 40, rng.integers(1, 10)).astype(np.int32) for _ in range(rows)],
            labels=rng.integers(0, 3, rows),
        )

    def own_names(self, cuts: tuple[int, int]) -> set[str]:
        """Names of the adapters that a device holds."""
        held = self.segments(self.split(*cuts))
        return {*held.bottom.adapter_names, *held.top.adapter_names}

    def own(self, cuts: tuple[int, int], scale: float = 1.0) -> dict[str, Tensor]:
        """The global adapters that a device holds, times `scale`."""
        names = self.own_names(cuts)
        return {name: scale * value for name, value in self.adapters.items() if name in names}

    @staticmethod
    def play(exchange: Exchange[Result], answer: Callable[[Message], Message]) -> Result:
        """Answer an exchange to its end."""
        said, waiting = next(exchange), deque[Message]()
        while True:
            match said:
                case Ahead(request):
                    waiting.append(answer(request))
                    reply: Message = Accepted()
                case Due():
                    reply = waiting.popleft()
                case _:
                    reply = answer(said)
            try:
                said = exchange.send(reply)
            except StopIteration as stop:
                result: Result = stop.value
                return result

    def _segments(self, split: Split) -> Segments:
        return Segments(
            split,
            self.hidden,
            build_bottom(self.checkpoint, split, TASK, self.lora),
            build_top(self.checkpoint, split, TASK, self.lora),
        )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    directory = tmp_path_factory.mktemp("bert")
    config = BertConfig(
        vocab_size=40,
        hidden_size=World.hidden,
        intermediate_size=12,
        num_hidden_layers=World.blocks,
        num_attention_heads=2,
        max_position_embeddings=World.longest,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config, add_pooling_layer=False).save_pretrained(directory)
    return World(open_checkpoint(directory))


@pytest.fixture(scope="session")
def still(world: World) -> World:
    """The same where nothing learns below the last block."""
    return World(world.checkpoint, first=world.blocks - 1)

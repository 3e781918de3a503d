"""What each split would cost a device, its edge and the link between them; nothing is trained."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from elsa.config.schema import Config, Network
from elsa.core.codec import Codec, Coder, Frame, Identity, Packet
from elsa.core.cost import Memory, Passes, Work, device_memory, passes_of, step_work
from elsa.core.plan import Option
from elsa.core.ragged import Reach, marks_of, reached_lengths
from elsa.core.split import Layout, Split
from elsa.engine.clock import FREE, Speed, Turns
from elsa.engine.codecs import adapters_sent, hop_codecs
from elsa.engine.directions import Directions
from elsa.engine.foreseen import Foreseen, Frames, step_seconds
from elsa.engine.parts import ModelParts, split_of
from elsa.engine.schedule import Leg
from elsa.model.adapters import part_names
from elsa.model.segments import adapter_shapes, reach_of
from elsa.model.sizes import tensors_of
from elsa.roles.parcel import wrap
from elsa.wire.messages import (
    Accepted,
    Activations,
    EdgeUpdate,
    Gradients,
    LabelledActivations,
    LocalPlan,
    Message,
    Ready,
    RoundOrder,
    Update,
)
from elsa.wire.serde import encode

NOISE = 64
"""Tokens of noise from which the size of a codec is taken whose size depends on what it carries."""


Kind = tuple[Layout, bool, Reach]
"""What of a split decides the frames: layout, whether nothing comes back, and what goes down."""


@dataclass(frozen=True)
class Demand:
    """What a device's batches ask for, whatever the split.

    Attributes:
        batches: tokens of each sequence, batch by batch, of an epoch.
        passes: mean operations of a batch.
        largest: B and S of the largest batch that may come.
        predicted: most tokens of a batch that a language model learns to predict.
        wanted: tokens of each sequence, batch by batch, that such a model's head needs.
    """

    batches: Sequence[tuple[int, ...]]
    passes: Passes
    largest: tuple[int, int]
    predicted: int
    wanted: Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Price:
    """What a split costs in a local step; in a mean one, where later epochs ask less of the edge.

    Attributes:
        split: where the model is cut.
        memory: bytes on the device.
        work: operations.
        up, down: bytes from and to the device.
        seconds: while nobody else asks the edge.
        edge_seconds: those of them on the edge's lane.
    """

    split: Split
    memory: Memory
    work: Work
    up: float
    down: float
    seconds: float
    edge_seconds: float


class Prices:
    """The prices of a config's model, optimizer and wire."""

    def __init__(self, config: Config, model: ModelParts) -> None:
        """Measure the activations of small steps; reads no weights."""
        checkpoint = model.checkpoint
        self.shape = model.shape()
        self._config = config
        self._edge_flops = config.network.edge_gflops * 1e9
        self._model = model
        self._itemsize = checkpoint.dtype.itemsize
        self._tensors = tensors_of(checkpoint, model.task, model.lora)
        self._activations = model.activations(config.train.recompute)
        self._codecs = hop_codecs(
            config.wire.model_copy(update={"folder": ""}),
            checkpoint.hidden_size,
            # Noise has no directions, so any axes give the size of a packet.
            Directions(lambda _: _some_axes(checkpoint.hidden_size), checkpoint.hidden_size),
        )
        self._a_value: dict[str, float] = {}
        self._frames = cache(self._step_frames)
        self.orders = cache(self._orders)

    def splits(self) -> list[Split]:
        """Those that a device may have, by the config."""
        split, blocks = self._config.split, self.shape.blocks
        if split.mode == "fixed":
            return [split_of(self._config, blocks)]
        least = Split.of(blocks, split.bottom_min, 0)
        return [
            Split.of(blocks, bottom, top)
            for bottom in range(least.bottom, blocks)
            for top in range(blocks - bottom)
        ]

    def demand(
        self, batches: Sequence[tuple[int, ...]], predicted: Sequence[tuple[int, ...]] = ()
    ) -> Demand:
        """What batches of sequences of these lengths ask for.

        Args:
            batches: tokens of each sequence of each batch.
            predicted: how many of them a language model learns to predict; left out, all.
        """
        rows = max(len(batch) for batch in batches)
        at_once = self._config.train.micro_batch or rows
        largest = min(rows, at_once), max(max(batch) for batch in batches)
        predicted = predicted or batches
        counted = max(sum(batch) for batch in predicted)
        wanted = [tuple(max(count, 1) for count in batch) for batch in predicted]
        return Demand(batches, passes_of(self.shape, batches), largest, counted, wanted)

    def prices(self, demand: Demand, speed: Speed, pace: float = 1.0) -> list[Price]:
        """What each split costs a device of this speed, which takes `pace` times as long."""
        means: dict[Kind, Frames] = {}
        found = []
        for split in self.splits():
            kind = self._kind(split)
            if kind not in means:
                every = range(len(demand.batches))
                means[kind] = _mean([self._frames_of(demand, it, kind) for it in every])
            asking = self._asking(demand) if self._still(split) else 1.0
            found.append(self._price(demand, speed, pace, split, means[kind], asking))
        return found

    def memory(self, demand: Demand, split: Split) -> Memory:
        """Bytes that a device would hold."""
        state_bytes = float(self.shape.hidden * self._itemsize)
        held = device_memory(
            self._tensors,
            self._activations,
            split,
            demand.largest,
            state_bytes,
            self.shape.first,
            demand.predicted,
        )
        if not self._still(split):
            return held
        *_, reach = self._kind(split)
        rows = sum(sum(reached_lengths(batch, reach)) for batch in demand.batches)
        return replace(held, kept=min(rows * state_bytes, self._config.split.keep_mb * 1e6))

    def whole(self, demand: Demand) -> tuple[Memory, float]:
        """Bytes and operations of a step, if the device held and trained the whole model itself."""
        own = Split(self.shape.blocks, 0, 0)
        memory = device_memory(
            self._tensors, self._activations, own, demand.largest, 0.0, self.shape.first
        )
        return memory, step_work(self.shape, own, demand.passes).device

    def legs(
        self,
        demand: Demand,
        speed: Speed,
        split: Split,
        pace: float = 1.0,
        steps: range | None = None,
        turns: Turns = FREE,
    ) -> list[Leg]:
        """An edge round of a device as the clock sees it.

        Args:
            demand: its batches, which come in turn.
            speed: its own.
            split: its own.
            pace: how many times as long it takes.
            steps: local steps since the run began; None takes those of the first edge round.
            turns: how it waits for others.
        """
        config, legs = self._config.federation, Foreseen(speed, pace, self._edge_flops)
        start, end = self.orders(split)
        legs.exchange(0.0, start[0], 0.0, start[1])
        still = self._still(split)
        for step, number in enumerate(range(config.steps) if steps is None else steps):
            batch = demand.batches[number % len(demand.batches)]
            work = step_work(self.shape, split, passes_of(self.shape, [batch]))
            if still and number >= len(demand.batches):
                legs.owed += work.top
                continue
            parts = self._parts_of(demand, number, self._kind(split))
            if len(parts) > 1:
                works = [
                    step_work(self.shape, split, passes_of(self.shape, [it])) for it, _ in parts
                ]
                legs.in_flight(works, [frames for _, frames in parts])
                continue
            ((_, frames),) = parts
            after, passes = turns.after(step), turns.passes(step)
            if still:
                legs.exchange(work.bottom, frames.h1, work.trunk, frames.h2)
                legs.owed = work.top
                continue
            if split.layout == "whole":
                legs.owed += work.device
                continue
            if split.layout == "two-part":
                legs.exchange(work.bottom, frames.h1, work.edge, frames.g1, after, passes)
            else:
                legs.exchange(work.bottom, frames.h1, work.trunk, frames.h2, after)
                legs.exchange(work.top, frames.g2, work.trunk_backward, frames.g1, 0, passes)
            legs.owed = work.bottom_backward
        legs.exchange(0.0, end[0], 0.0, end[1])
        return legs.legs

    def option(self, price: Price) -> Option:
        """The price as the planner wants it."""
        load = price.edge_seconds * self._config.federation.participation
        return Option(price.split, price.memory.total, price.seconds, load)

    def passed(self, demand: Demand, split: Split) -> tuple[float, float]:
        """Bytes from and to a device in its first global round."""
        config, kind = self._config.federation, self._kind(split)
        steps = config.edge_rounds * config.steps
        if self._still(split):
            steps = min(steps, len(demand.batches))
        every = [self._frames_of(demand, step, kind) for step in range(steps)]
        start, end = self.orders(split)
        if self._still(split):
            up, down = sum(it.h1 for it in every), sum(it.h2 for it in every)
        else:
            up, down = sum(it.up for it in every), sum(it.down for it in every)
        return (
            up + config.edge_rounds * (start[0] + end[0]),
            down + config.edge_rounds * (start[1] + end[1]),
        )

    def _kind(self, split: Split) -> Kind:
        reach: Reach = "all"
        if not split.head_at_edge:
            reach = reach_of(self._model.checkpoint.family, self._model.task, split.top)
        return split.layout, split.bottom <= self.shape.first, reach

    def _still(self, split: Split) -> bool:
        """Whether nothing learns below the second cut, so that each text is sent once."""
        return split.layout == "three-part" and self.shape.first >= split.top_blocks.start

    def _asking(self, demand: Demand) -> float:
        """Part of the run's local steps in which the texts are new, as they are in one epoch."""
        config = self._config.federation
        steps = config.rounds * config.edge_rounds * config.steps
        return min(1.0, len(demand.batches) / steps)

    def _frames_of(self, demand: Demand, step: int, kind: Kind) -> Frames:
        """Bytes of the frames of a local step, of all of its micro-batches together."""
        frames = [it for _, it in self._parts_of(demand, step, kind)]
        if len(frames) == 1:
            return frames[0]
        return Frames(*(sum(each) for each in zip(*map(astuple, frames), strict=True)))

    def _parts_of(
        self, demand: Demand, step: int, kind: Kind
    ) -> list[tuple[tuple[int, ...], Frames]]:
        """The micro-batches of a local step: tokens of each sequence, and bytes of the frames."""
        number = step % len(demand.batches)
        batch = demand.batches[number]
        wanted = demand.wanted[number] if kind[2] == "some" else ()
        rows = -(-len(batch) // self._config.train.in_flight)
        several = rows < len(batch)
        return [
            (part, self._frames(part, wanted[at : at + rows], *kind, several))
            for at in range(0, len(batch), rows)
            if (part := batch[at : at + rows])
        ]

    def _step_frames(
        self,
        lengths: tuple[int, ...],
        wanted: tuple[int, ...],
        layout: Layout,
        frozen: bool,
        reach: Reach,
        several: bool,
    ) -> Frames:
        """Bytes of the frames of a local step, or of one of `several` micro-batches, by lengths.

        Args:
            lengths: see above.
            wanted: tokens of each at the second cut, where the reach is "some"; else empty.
            layout, frozen, reach: of the split; see `Kind`.
            several: see above.
        """
        if layout == "whole":
            return Frames(0.0, 0.0, 0.0, 0.0)
        down = wanted or reached_lengths(lengths, reach)
        marks = marks_of(torch.ones(sum(lengths), dtype=torch.bool)) if wanted else b""
        numbers = tuple(range(len(lengths))) if self._codecs.remembering else ()

        def activations(rows: Sequence[int], codec: Codec, marks: bytes = b"") -> float:
            packet = self._packet(codec, sum(rows))
            part = int(several)
            body = Activations(1, True, rows, packet, numbers, "", marks, part, several)
            return len(encode(body)) + self._payload(codec, sum(rows))

        def gradients(rows: Sequence[int], codec: Codec) -> float:
            body = Gradients(1, self._packet(codec, sum(rows)), micro_batch=int(several))
            return len(encode(body)) + self._payload(codec, sum(rows))

        codecs = self._codecs
        if layout == "two-part":
            labels = (0,) * (sum(lengths) if self.shape.head_per_token else len(lengths))
            told = LabelledActivations(
                1, True, lengths, labels, self._packet(codecs.h1, sum(lengths))
            )
            up = len(encode(told)) + self._payload(codecs.h1, sum(lengths))
            down_frame = Gradients(1, self._packet(codecs.g1, sum(lengths)), 1.0)
            down_bytes = len(encode(down_frame)) + self._payload(codecs.g1, sum(lengths))
            return Frames(up, 0.0, 0.0, down_bytes)
        return Frames(
            h1=activations(lengths, codecs.h1, marks),
            h2=activations(down, codecs.h2),
            g2=gradients(down, codecs.g2),
            g1=len(encode(Accepted())) if frozen else gradients(lengths, codecs.g1),
        )

    def cloud_orders(self) -> tuple[int, int]:
        """Bytes of a global round between an edge and the cloud, up and down, but for names."""
        model, config = self._model, self._config
        shapes = adapter_shapes(model.checkpoint, model.task, model.lora)
        zeros = {name: torch.zeros(shape) for name, shape in shapes.items()}
        sent = wrap(zeros, adapters_sent(config.wire))
        order = RoundOrder(0, config.federation.edge_rounds, config.federation.steps, (), sent)
        return len(encode(EdgeUpdate(0, sent, 1.0, ()))), len(encode(order))

    def _orders(self, split: Split) -> tuple[tuple[int, int], tuple[int, int]]:
        """Bytes up and down at the start of an edge round, and at its end."""
        model, config = self._model, self._config
        shapes = adapter_shapes(model.checkpoint, model.task, model.lora)
        trunk = set(part_names(list(shapes), split, "trunk"))
        own = {name: torch.zeros(shape) for name, shape in shapes.items() if name not in trunk}
        sent = wrap(own, adapters_sent(config.wire))
        _, frozen, reach = self._kind(split)
        ready = Ready(0, 0, split.bottom, split.top, frozen, reach, labelled=split.head_at_edge)
        plan = LocalPlan(0, 0, config.federation.steps, 2**31, sent)

        def size(message: Message) -> int:
            return len(encode(message))

        update = Update(0, 0, sent, config.train.batch_size, config.train.batch_size, 1.0)
        return (size(ready), size(plan)), (size(update), size(Accepted()))

    def _price(
        self,
        demand: Demand,
        speed: Speed,
        pace: float,
        split: Split,
        frames: Frames,
        asking: float,
    ) -> Price:
        work = step_work(self.shape, split, demand.passes)
        hops = {"three-part": 4, "two-part": 2, "whole": 0}[split.layout]
        up, down = frames.up, frames.down
        if self._still(split):
            work = replace(work, bottom=asking * work.bottom, trunk=asking * work.trunk)
            hops, up, down = 2, asking * frames.h1, asking * frames.h2
        wire = hops * asking * speed.latency + up / speed.up + down / speed.down
        edge_seconds = work.edge / self._edge_flops
        seconds = pace * (work.device / speed.flops + wire) + edge_seconds
        in_flight = self._config.train.in_flight
        if in_flight > 1:
            foreseen = Foreseen(speed, pace, self._edge_flops)
            seconds = step_seconds(foreseen, work, frames, in_flight)
        return Price(
            split=split,
            memory=self.memory(demand, split),
            work=work,
            up=up,
            down=down,
            seconds=seconds,
            edge_seconds=edge_seconds,
        )

    def _packet(self, codec: Codec, tokens: int) -> Packet:
        dtype = str(self._model.checkpoint.dtype).removeprefix("torch.")
        return Packet(codec.name, dtype, (tokens, self.shape.hidden), b"")

    def _payload(self, codec: Codec, tokens: int) -> float:
        hidden = self.shape.hidden
        if isinstance(codec, Identity):
            return tokens * hidden * self._itemsize
        if isinstance(codec, Coder):
            return codec.size(tokens, hidden)
        if codec.name not in self._a_value:
            # Noise compresses least; what is really sent is less.
            noise = torch.randn(NOISE, hidden, generator=torch.Generator().manual_seed(0))
            payload = codec.encode(noise, Frame((NOISE,))).payload
            self._a_value[codec.name] = len(payload) / noise.numel()
        return tokens * hidden * self._a_value[codec.name]


def _some_axes(hidden: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    axes: Tensor = torch.linalg.qr(torch.randn(hidden, hidden, generator=generator))[0]
    return axes


def _mean(frames: Sequence[Frames]) -> Frames:
    count = len(frames)
    return Frames(
        h1=sum(it.h1 for it in frames) / count,
        h2=sum(it.h2 for it in frames) / count,
        g2=sum(it.g2 for it in frames) / count,
        g1=sum(it.g1 for it in frames) / count,
    )


def device_memories(network: Network, devices: Sequence[str], seed: int) -> Mapping[str, float]:
    """Bytes that each device can hold: the declared sizes in equal shares, drawn by the seed."""
    sizes = network.device_memory_mb
    if not sizes:
        return dict.fromkeys(devices, math.inf)
    places = np.random.default_rng((seed, *b"memory")).permutation(len(devices))
    return {
        device: sizes[int(place) * len(sizes) // len(devices)] * 1e6
        for device, place in zip(devices, places, strict=True)
    }

"""The device: it alone knows the text and the labels.

It holds the embeddings, the first p blocks, the last q blocks and the head, with their adapters. A
local step is in `passes`.

Shapes: B sequences, U tokens of them that the top uses, D hidden size.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from elsa.core.codec import HopCodecs
from elsa.core.score import Tally
from elsa.core.split import Layout, Split
from elsa.core.ssop import Rotations
from elsa.data.batches import Batch, BatchStream, Examples, eval_batches
from elsa.errors import ProtocolError
from elsa.model.segments import Bottom, Top
from elsa.roles.exchange import Exchange, expect
from elsa.roles.hops import Hops
from elsa.roles.kept import Kept
from elsa.roles.learner import Learner, OptimizerSettings
from elsa.roles.local import LocalStep
from elsa.roles.parcel import Sent, unwrap, wrap
from elsa.roles.passes import Alone, Disclosing, Keeping, Passes, ThreePart
from elsa.roles.perturb import Disguise, Perturbation, rotations_of
from elsa.wire.messages import Accepted, LocalPlan, Ready, Score, Update

_PASSES: Mapping[Layout, Callable[[Hops], Passes]] = {
    "two-part": Disclosing,
    "whole": Alone,
}

_KEPT = "kept/"
"""Begins the names of hidden states kept, in what a device remembers."""


@dataclass(frozen=True)
class Segments:
    """The parts of the model on a device; devices of one process may share them.

    Attributes:
        split: where the model is cut.
        hidden: D.
        bottom: embeddings and the first blocks.
        top: the last blocks, the final norm and the head; None where the head is at the edge.
    """

    split: Split
    hidden: int
    bottom: Bottom
    top: Top | None

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Global names of the trainable tensors of all parts."""
        return (*self.bottom.adapter_names, *(self.top.adapter_names if self.top else ()))

    @property
    def still(self) -> bool:
        """Whether nothing learns below the second cut, so that a text's h2 never changes."""
        if self.top is None or self.split.layout != "three-part":
            return False
        return self.top.lora.first >= self.split.top_blocks.start


@dataclass(frozen=True)
class DeviceSettings:
    """How a device trains.

    Attributes:
        optimizer: of its adapters.
        batch_size: B in training.
        eval_batch_size: B in evaluation.
        bucketing: whether texts of like length share a batch.
        pad_id: token id that fills a batch up; its embedding never matters.
        seed: of the order of its rows.
        perturbation: how it hides what the edge sees; None shows it plainly.
        sent: how adapters travel.
        rank: r of its adapters; 0 takes that of the global ones.
        micro_batch: rows whose activations are held at once; 0 holds those of the whole batch.
        keep_bytes: of hidden states that it keeps at most, where nothing learns below its top.
        recompute: whether blocks keep what they are given, not what comes up in them.
        in_flight: micro-batches that a local step's batch is cut into, all under way at once.
    """

    optimizer: OptimizerSettings
    batch_size: int
    eval_batch_size: int
    bucketing: bool
    pad_id: int
    seed: int
    perturbation: Perturbation | None = None
    sent: Sent = "float32"
    rank: int = 0
    micro_batch: int = 0
    keep_bytes: int = 2**28
    recompute: bool = False
    in_flight: int = 1


@dataclass(frozen=True)
class Trained:
    """An edge round that a device finished.

    Attributes:
        samples: rows trained on.
        loss: their mean loss.
        alone: tokens of each text of every step that it did by itself, but for asking for h2.
    """

    samples: int
    loss: float
    alone: Sequence[tuple[int, ...]] = ()


class Device:
    """One device: its rows, its segments, and its optimizer's memory between rounds."""

    def __init__(
        self,
        name: str,
        segments: Segments,
        training: Examples,
        held_out: Examples,
        codecs: HopCodecs,
        settings: DeviceSettings,
    ) -> None:
        """Set up with the rows to train on, if any, and those to evaluate on, if any."""
        self.name = name
        self.segments = segments
        self._training = training
        self._held_out = held_out
        self._codecs = codecs
        self._settings = settings
        self._moments: MutableMapping[str, Mapping[str, Tensor]] = {}
        self._rotations: Rotations | None = None
        self._stream = self.stream() if len(training) else None
        self._kept = Kept(settings.keep_bytes)
        self._last = (-1, -1, 0)

    @property
    def training(self) -> Examples:
        """The rows it trains on."""
        return self._training

    def stream(self) -> BatchStream:
        """Its training batches from the first on, apart from those it trains with."""
        settings = self._settings
        return BatchStream(
            self._training,
            settings.batch_size,
            settings.seed,
            settings.bucketing,
            settings.pad_id,
        )

    def train(self, round_: int, edge_round: int) -> Exchange[Trained]:
        """Take part in an edge round: ask for the plan, take its local steps, send the update."""
        if self._stream is None:
            raise ProtocolError(f"device {self.name} holds no training rows")
        plan = yield from self._ready(round_, edge_round)
        received, how = unwrap(plan.adapters), self._settings.perturbation
        again = self._again(round_, edge_round)
        learner = Learner(received, self._settings.optimizer, self.moments())
        passes = self._passes(plan)
        loss, samples = 0.0, 0
        alone: list[tuple[int, ...]] = []
        for step in range(plan.local_steps):
            batch = next(self._stream)
            place = (round_, edge_round, step, again)
            local = self._local(batch, learner, self._disguise(*place))
            rows = len(batch.lengths)
            loss += rows * (yield from passes.step(step, local))
            learner.step()
            if passes.alone:
                alone.append(batch.lengths)
            samples += rows
        if self._settings.optimizer.keep_moments:
            self._moments[self.name] = learner.moments()
        learned: Mapping[str, Tensor] = learner.tensors()
        mean, told = loss / max(samples, 1), loss / max(samples, 1)
        if how is not None and how.update is not None:
            secret = how.secret.derive("update", round_, edge_round, again)
            learned, told = how.submitted(received, learned, secret), 0.0
        update = Update(
            round=round_,
            edge_round=edge_round,
            adapters=wrap(learned, self._settings.sent),
            rows=len(self._training),
            samples=samples,
            loss=told,
        )
        expect(Accepted, (yield update))
        return Trained(samples, mean, alone)

    def evaluate(self, round_: int) -> Exchange[Tally]:
        """Measure the edge's adapters on the held-out rows, through the wire as it is."""
        plan = yield from self._ready(round_, 0)
        again = self._again(round_, -1)
        learner = Learner(unwrap(plan.adapters), self._settings.optimizer)
        passes, total = self._passes(plan), Tally()
        batches = eval_batches(
            self._held_out, self._settings.eval_batch_size, self._settings.pad_id
        )
        for step, batch in enumerate(batches):
            local = self._local(batch, learner, self._disguise(round_, -1, step, again))
            total += yield from passes.score(step, local)
        score = Score(round_, total.items, total.correct, total.mean_loss, total.texts, total.whole)
        expect(Accepted, (yield score))
        return total

    def evaluating(self) -> "Device":
        """One that holds the same rows to evaluate on, and none to train on."""
        own = (self._training.take([]), self._held_out, self._codecs, self._settings)
        return Device(self.name, self.segments, *own)

    def epoch_lengths(self) -> list[tuple[int, ...]]:
        """Tokens of each text of every batch of its first epoch; the edge is to see them anyway."""
        return self._stream.epoch_lengths() if self._stream else []

    def epoch_predicted(self) -> list[tuple[int, ...]]:
        """Tokens of each text of these batches that a language model learns to predict."""
        return self._stream.epoch_predicted() if self._stream else []

    def refit(self, segments: Segments, moments: Mapping[str, Tensor]) -> None:
        """Take other segments, between rounds, with optimizer state of their adapters.

        What codecs remember stays: states of another cut are far from it, and sent in full.
        """
        self.segments = segments
        self._moments[self.name] = moments
        self._rotations = None
        self._kept.clear()

    def memory(self) -> dict[str, Tensor]:
        """What its codecs remember of what they sent and received, and hidden states it keeps."""
        held = {f"{_KEPT}{key}": value for key, value in self._kept.state().items()}
        return self._codecs.state() | held

    def moments(self) -> Mapping[str, Tensor]:
        """Optimizer state to keep across rounds."""
        return self._moments.get(self.name, {})

    def keep_moments_in(self, store: MutableMapping[str, Mapping[str, Tensor]]) -> None:
        """Keep them there from now on, under its name; what is there already is its own."""
        self._moments = store

    @property
    def position(self) -> int:
        """Where the stream of training batches stands."""
        return self._stream.position if self._stream else 0

    def restore(
        self, moments: Mapping[str, Tensor] | None, memory: Mapping[str, Tensor], position: int
    ) -> None:
        """Go on from an earlier `moments`, `memory` and `position`; None leaves its moments."""
        if moments is not None:
            self._moments[self.name] = moments
        self._codecs.restore({k: v for k, v in memory.items() if not k.startswith(_KEPT)})
        held = {k.removeprefix(_KEPT): v for k, v in memory.items() if k.startswith(_KEPT)}
        if held:
            self._kept.restore(held)
        if self._stream:
            self._stream.position = position

    def _ready(self, round_: int, edge_round: int) -> Exchange[LocalPlan]:
        split, top, settings = self.segments.split, self.segments.top, self._settings
        frozen = not self.segments.bottom.adapter_names
        ready = Ready(
            round_,
            edge_round,
            split.bottom,
            split.top,
            frozen,
            top.reach if top else "all",
            settings.rank,
            top.head_task if top else "",
            split.head_at_edge,
        )
        plan = expect(LocalPlan, (yield ready))
        if (plan.round, plan.edge_round) != (round_, edge_round):
            raise ProtocolError(
                f"plan of round {plan.round}.{plan.edge_round} came "
                f"where {round_}.{edge_round} was asked for"
            )
        return plan

    def _passes(self, plan: LocalPlan) -> Passes:
        hops = Hops(self._codecs, plan.seed, self.segments.hidden)
        if self.segments.still:
            return Keeping(hops, self._kept)
        layout = self.segments.split.layout
        if layout == "three-part":
            return ThreePart(hops, self._settings.in_flight)
        return _PASSES[layout](hops)

    def _again(self, round_: int, edge_round: int) -> int:
        """How often it was at this place before; what it sends must never share its noise."""
        if self._last[:2] == (round_, edge_round):
            self._last = (round_, edge_round, self._last[2] + 1)
        else:
            self._last = (round_, edge_round, 0)
        return self._last[2]

    def _disguise(self, round_: int, edge_round: int, step: int, again: int) -> Disguise:
        how = self._settings.perturbation
        if how is None:
            return Disguise()
        place = (round_, edge_round, step)
        secret = how.secret.derive("noise", *place, again)
        if not how.rank:
            return Disguise(None, how.noise, secret, how.gradients)
        if self._rotations is None:
            rows = self._training if len(self._training) else self._held_out
            self._rotations = rotations_of(how, self.segments.bottom, rows, self._settings.pad_id)
        return Disguise(self._rotations.at(*place), how.noise, secret, how.gradients)

    def _local(self, batch: Batch, learner: Learner, disguise: Disguise) -> LocalStep:
        bottom, top, how = self.segments.bottom, self.segments.top, self._settings
        adapters, rows = learner.parameters, how.micro_batch
        return LocalStep(bottom, top, adapters, batch, disguise, rows, recompute=how.recompute)

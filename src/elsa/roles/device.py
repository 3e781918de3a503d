"""The device: it alone knows the text and the labels.

It holds the embeddings, the first p blocks, the last q blocks and the head, with their adapters. A
local step (ELSA, arXiv 2601.13824, split training) is four hops:

    h1 = bottom(x)  -> edge    hop 1        h2 = trunk(h1)  <- edge   hop 2
    g2 = dL/dh2     -> edge    hop 3        g1 = dL/dh1     <- edge   hop 4

Where nothing learns below the second cut, a text's h2 is asked for once and kept (`roles.kept`);
then hops 3 and 4 do not exist, and no gradient leaves the device.

Shapes: B sequences, S tokens of the longest, T tokens of all without padding, D hidden size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from elsa.core.codec import HopCodecs
from elsa.core.ragged import reached_lengths
from elsa.core.score import Tally
from elsa.core.split import Split
from elsa.core.ssop import Rotations
from elsa.data.batches import Batch, BatchStream, Examples, eval_batches
from elsa.errors import CacheMiss, ProtocolError
from elsa.model.segments import Bottom, Top
from elsa.roles.exchange import Exchange, expect
from elsa.roles.hops import Hops
from elsa.roles.kept import Kept
from elsa.roles.learner import Learner, OptimizerSettings
from elsa.roles.local import LocalStep
from elsa.roles.parcel import Sent, unwrap, wrap
from elsa.roles.perturb import Disguise, Perturbation, rotations_of
from elsa.wire.messages import (
    Accepted,
    Activations,
    Gradients,
    LocalPlan,
    Message,
    Ready,
    Resend,
    Score,
    Update,
)

_KEPT = "kept/"
"""Begins the names of hidden states kept, in what a device remembers."""


@dataclass(frozen=True)
class Segments:
    """The parts of the model on a device; devices of one process may share them.

    Attributes:
        split: where the model is cut.
        hidden: D.
        bottom: embeddings and the first blocks.
        top: the last blocks, the final norm and the head.
    """

    split: Split
    hidden: int
    bottom: Bottom
    top: Top

    @property
    def still(self) -> bool:
        """Whether nothing learns below the second cut, so that a text's h2 never changes."""
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


@dataclass(frozen=True)
class Trained:
    """An edge round that a device finished.

    Attributes:
        samples: rows trained on.
        loss: their mean loss.
        above: tokens of each text of every step that sent no gradient down.
    """

    samples: int
    loss: float
    above: Sequence[tuple[int, ...]] = ()


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
        self._moments: Mapping[str, Tensor] = {}
        self._rotations: Rotations | None = None
        self._stream = self.stream() if len(training) else None
        self._kept = Kept(settings.keep_bytes)

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
        learner = Learner(unwrap(plan.adapters), self._settings.optimizer, self._moments)
        hops = self._hops(plan)
        loss, samples, turns = 0.0, 0, count()
        above: list[tuple[int, ...]] = []
        for step in range(plan.local_steps):
            batch = next(self._stream)
            disguise = self._disguise(round_, edge_round, step)
            rows = len(batch.lengths)
            if self.segments.still:
                above.append(batch.lengths)
                h2 = yield from self._keep(turns, batch, learner, hops, disguise)
                part, _ = self._local(batch, learner, Disguise()).learn(h2)
                learner.step()
            else:
                part = yield from self._step(step, batch, learner, hops, disguise)
            loss += rows * part
            samples += rows
        if self._settings.optimizer.keep_moments:
            self._moments = learner.moments()
        update = Update(
            round=round_,
            edge_round=edge_round,
            adapters=wrap(learner.tensors(), self._settings.sent),
            rows=len(self._training),
            samples=samples,
            loss=loss / max(samples, 1),
        )
        expect(Accepted, (yield update))
        return Trained(update.samples, update.loss, above)

    def evaluate(self, round_: int) -> Exchange[Tally]:
        """Measure the edge's adapters on the held-out rows, through the wire as it is."""
        plan = yield from self._ready(round_, 0)
        learner = Learner(unwrap(plan.adapters), self._settings.optimizer)
        hops, total = self._hops(plan), Tally()
        batches = eval_batches(
            self._held_out, self._settings.eval_batch_size, self._settings.pad_id
        )
        for step, batch in enumerate(batches):
            local = self._local(batch, learner, self._disguise(round_, -1, step))
            with torch.no_grad():
                h1 = local.up()
            h2 = yield from self._pass_trunk(step, batch, h1, hops, training=False)
            total += local.score(h2)
        score = Score(round_, total.items, total.correct, total.mean_loss, total.texts, total.whole)
        expect(Accepted, (yield score))
        return total

    def epoch_lengths(self) -> list[tuple[int, ...]]:
        """Tokens of each text of every batch of its first epoch; the edge is to see them anyway."""
        return self._stream.epoch_lengths() if self._stream else []

    def epoch_predicted(self) -> list[int]:
        """Tokens of every batch of its first epoch that a language model learns to predict."""
        return self._stream.epoch_predicted() if self._stream else []

    def refit(self, segments: Segments, moments: Mapping[str, Tensor]) -> None:
        """Take other segments, between rounds, with optimizer state of their adapters.

        What codecs remember stays: states of another cut are far from it, and sent in full.
        """
        self.segments = segments
        self._moments = moments
        self._rotations = None
        self._kept.clear()

    def memory(self) -> dict[str, Tensor]:
        """What its codecs remember of what they sent and received, and hidden states it keeps."""
        held = {f"{_KEPT}{key}": value for key, value in self._kept.state().items()}
        return self._codecs.state() | held

    def moments(self) -> Mapping[str, Tensor]:
        """Optimizer state to keep across rounds."""
        return self._moments

    @property
    def position(self) -> int:
        """Where the stream of training batches stands."""
        return self._stream.position if self._stream else 0

    def restore(
        self, moments: Mapping[str, Tensor], memory: Mapping[str, Tensor], position: int
    ) -> None:
        """Go on from an earlier `moments`, `memory` and `position`."""
        self._moments = moments
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
            top.reach,
            settings.rank,
            top.head_task,
        )
        plan = expect(LocalPlan, (yield ready))
        if (plan.round, plan.edge_round) != (round_, edge_round):
            raise ProtocolError(
                f"plan of round {plan.round}.{plan.edge_round} came "
                f"where {round_}.{edge_round} was asked for"
            )
        return plan

    def _hops(self, plan: LocalPlan) -> Hops:
        return Hops(self._codecs, plan.seed, self.segments.hidden)

    def _numbers(self, batch: Batch) -> Sequence[int]:
        """Number of each row, for codecs that remember; if none does, the edge need not know."""
        return batch.rows if self._codecs.remembering else ()

    def _disguise(self, round_: int, edge_round: int, step: int) -> Disguise:
        how = self._settings.perturbation
        if how is None:
            return Disguise()
        place = (round_, edge_round, step)
        secret = how.secret.derive("noise", *place)
        if not how.rank:
            return Disguise(None, how.noise, secret)
        if self._rotations is None:
            rows = self._training if len(self._training) else self._held_out
            self._rotations = rotations_of(how, self.segments.bottom, rows, self._settings.pad_id)
        return Disguise(self._rotations.at(*place), how.noise, secret)

    def _local(self, batch: Batch, learner: Learner, disguise: Disguise) -> LocalStep:
        bottom, top, how = self.segments.bottom, self.segments.top, self._settings
        adapters, rows = learner.parameters, how.micro_batch
        return LocalStep(bottom, top, adapters, batch, disguise, rows, recompute=how.recompute)

    def _step(
        self, step: int, batch: Batch, learner: Learner, hops: Hops, disguise: Disguise
    ) -> Exchange[float]:
        local = self._local(batch, learner, disguise)
        h2 = yield from self._pass_trunk(step, batch, local.up(), hops, training=True)
        loss, slope = local.learn(h2)
        numbers = self._numbers(batch)
        g2 = hops.seal("g2", slope, self._reached(batch), step, numbers)
        reply = yield Gradients(step, g2)
        if self.segments.bottom.adapter_names:
            back = expect(Gradients, reply)
            _check_step(back, step)
            g1 = hops.unseal("g1", back.packet, batch.lengths, step, numbers)
            local.down(g1)
        else:
            expect(Accepted, reply)
        learner.step()
        return loss

    def _keep(
        self,
        turns: Iterator[int],
        batch: Batch,
        learner: Learner,
        hops: Hops,
        disguise: Disguise,
    ) -> Exchange[Tensor]:
        """h2 [U, D] of a batch, for the top; the edge is asked for rows that are not kept."""
        places, fresh = self._kept.missing(batch.rows), {}
        if places:
            some = batch.take(places)
            with torch.no_grad():
                h1 = self._local(some, learner, disguise).up()
            h2 = yield from self._pass_trunk(next(turns), some, h1, hops, training=True)
            fresh = self._kept.put(some.rows, self._reached(some), disguise.read(h2))
        return self._kept.take(batch.rows, fresh)

    def _reached(self, batch: Batch) -> Sequence[int]:
        """Rows of each text at the second cut."""
        return reached_lengths(batch.lengths, self.segments.top.reach)

    def _pass_trunk(
        self, step: int, batch: Batch, h1: Tensor, hops: Hops, *, training: bool
    ) -> Exchange[Tensor]:
        lengths = batch.lengths
        numbers = self._numbers(batch) if training else ()
        packet = hops.seal("h1", h1, lengths, step, numbers)
        reply = yield Activations(step, training, lengths, packet, numbers)
        if isinstance(reply, Resend):
            packet = hops.seal("h1", h1, lengths, step, numbers, full=True)
            reply = yield Activations(step, training, lengths, packet, numbers)
        answer, down = _answer_to(step, reply), self._reached(batch)
        try:
            return hops.unseal("h2", answer.packet, down, step, numbers)
        except CacheMiss:
            answer = _answer_to(step, (yield Resend(step)))
            return hops.unseal("h2", answer.packet, down, step, numbers)


def _answer_to(step: int, reply: Message) -> Activations:
    answer = expect(Activations, reply)
    _check_step(answer, step)
    return answer


def _check_step(reply: Activations | Gradients, step: int) -> None:
    if reply.step != step:
        raise ProtocolError(f"answer to step {reply.step} came where {step} was due")

"""A device that poisons the federation, made of two honest ones and of nothing in their code.

The one holds the true rows; the other holds what the attacker trains on, and codecs through which
it sends what it forged. The attacker takes part as the second in the rounds of its attack and as
the first in all others, with one optimizer memory and one place in its rows. What it submits is
forged on its way out. So all that others see of an attack is what a real device could send.
"""

import hashlib
from collections.abc import Mapping, MutableMapping
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from elsa.core.codec import Codec, Frame, HopCodecs, Packet, Stateful
from elsa.core.poison import Forgery
from elsa.core.score import Tally
from elsa.roles.device import Device, Segments, Trained
from elsa.roles.exchange import Exchange
from elsa.roles.parcel import unwrap
from elsa.wire.messages import LocalPlan, Message, Update


@dataclass(frozen=True)
class Plot:
    """When an attack happens, and what is forged.

    Attributes:
        first: global round that it begins in.
        until: global round that it ends before; 0 never ends.
        forgery: of what is sent; None forges nothing, where the rows alone are poisoned.
        seed: of what is drawn, its own for each attacker.
    """

    first: int
    until: int
    forgery: Forgery | None
    seed: int

    def covers(self, round_: int) -> bool:
        """Whether a global round is poisoned."""
        return self.first <= round_ and (not self.until or round_ < self.until)

    def generator(self, *purpose: object) -> Generator:
        """A generator for one purpose, whatever was drawn before."""
        words = repr((self.seed, *purpose)).encode()
        digest = hashlib.blake2b(words, digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


class Attacker:
    """A poisoned device, as the engine sees a device."""

    def __init__(self, honest: Device, corrupt: Device, plot: Plot) -> None:
        """Set up with two devices of one name, segments and codecs, those of `forged` apart."""
        self.name = honest.name
        self._honest = honest
        self._corrupt = corrupt
        self._plot = plot

    @property
    def segments(self) -> Segments:
        """The parts of the model that it holds."""
        return self._honest.segments

    @property
    def position(self) -> int:
        """Where the stream of training batches stands."""
        return self._honest.position

    def attacks(self, round_: int) -> bool:
        """Whether it is poisoned in this global round."""
        return self._plot.covers(round_)

    def train(self, round_: int, edge_round: int) -> Exchange[Trained]:
        """Take part in an edge round, as `Device.train`."""
        attacks = self.attacks(round_)
        acting, resting = (
            (self._corrupt, self._honest) if attacks else (self._honest, self._corrupt)
        )
        try:
            exchange = acting.train(round_, edge_round)
            if attacks:
                exchange = self._submitting(exchange)
            return (yield from exchange)
        finally:
            resting.restore(acting.moments(), {}, acting.position)

    def evaluate(self, round_: int) -> Exchange[Tally]:
        """Measure adapters on its true held-out rows, as `Device.evaluate`."""
        return self._honest.evaluate(round_)

    def epoch_lengths(self) -> list[tuple[int, ...]]:
        """Tokens of each text of every batch of its first epoch."""
        return self._honest.epoch_lengths()

    def epoch_predicted(self) -> list[tuple[int, ...]]:
        """As of a device."""
        return self._honest.epoch_predicted()

    def refit(self, segments: Segments, moments: Mapping[str, Tensor]) -> None:
        """Take other segments, as `Device.refit`."""
        self._honest.refit(segments, moments)
        self._corrupt.refit(segments, moments)

    def moments(self) -> Mapping[str, Tensor]:
        """Optimizer state to keep across rounds."""
        return self._honest.moments()

    def memory(self) -> dict[str, Tensor]:
        """What its codecs remember; both devices have the same ones."""
        return self._honest.memory()

    def keep_moments_in(self, store: MutableMapping[str, Mapping[str, Tensor]]) -> None:
        """As of a device; both devices have the same ones."""
        self._honest.keep_moments_in(store)
        self._corrupt.keep_moments_in(store)

    def restore(
        self, moments: Mapping[str, Tensor] | None, memory: Mapping[str, Tensor], position: int
    ) -> None:
        """Go on from an earlier `moments`, `memory` and `position`, as `Device.restore`."""
        self._honest.restore(moments, memory, position)
        self._corrupt.restore(moments, {}, position)

    def _submitting(self, exchange: Exchange[Trained]) -> Exchange[Trained]:
        received: Mapping[str, Tensor] = {}
        with closing(exchange):
            request = next(exchange)
            while True:
                if isinstance(request, Update):
                    request = self._forged(request, received)
                answer: Message = yield request
                if isinstance(answer, LocalPlan):
                    received = unwrap(answer.adapters)
                try:
                    request = exchange.send(answer)
                except StopIteration as stop:
                    done: Trained = stop.value
                    return done

    def _forged(self, update: Update, received: Mapping[str, Tensor]) -> Update:
        forgery = self._plot.forgery
        if forgery is None:
            return update
        forged = {}
        for name, trained in update.adapters.items():
            draw = self._plot.generator(update.round, update.edge_round, name)
            submitted = forgery.adapters(received[name], trained.float(), draw)
            forged[name] = submitted.to(trained.dtype)
        return replace(update, adapters=forged)


def forging(codecs: HopCodecs, plot: Plot) -> HopCodecs:
    """The codecs of an attacker: g2 is forged before it is sent, and g1 cleaned when it is back.

    Their memory is that of `codecs`; h1 and h2 pass as they are.
    """
    if plot.forgery is None:
        return codecs
    g2, g1 = (_forging(codec, plot, plot.forgery) for codec in (codecs.g2, codecs.g1))
    return replace(codecs, g2=g2, g1=g1)


class _Forging:
    """A codec that forges what it encodes and cleans what it decodes."""

    def __init__(self, inner: Codec, plot: Plot, forgery: Forgery) -> None:
        self.name = inner.name
        self._inner = inner
        self._plot = plot
        self._forgery = forgery

    def encode(self, values: Tensor, frame: Frame) -> Packet:
        return self._inner.encode(self._forged(values, frame), frame)

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        return self._forgery.returned(self._inner.decode(packet, frame))

    def _forged(self, values: Tensor, frame: Frame) -> Tensor:
        return self._forgery.gradient(values, self._plot.generator("g2", frame.seed))


class _Remembering(_Forging):
    """The same around a codec that remembers; the memory stays where it is."""

    def __init__(self, inner: Codec, memory: Stateful, plot: Plot, forgery: Forgery) -> None:
        super().__init__(inner, plot, forgery)
        self._memory = memory

    def encode(self, values: Tensor, frame: Frame, full: bool = False) -> Packet:
        return self._memory.encode(self._forged(values, frame), frame, full)

    def state(self) -> dict[str, Tensor]:
        return self._memory.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._memory.restore(state)


def _forging(codec: Codec, plot: Plot, forgery: Forgery) -> Codec:
    if isinstance(codec, Stateful):
        return _Remembering(codec, codec, plot, forgery)
    return _Forging(codec, plot, forgery)

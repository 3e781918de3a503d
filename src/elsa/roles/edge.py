"""The edge server: it holds the middle blocks, and averages what its devices learn.

It never sees text, token ids or labels. Towards the cloud it takes one order a global round;
towards each device it is a state machine that answers what the device asks:

    Ready -> (Activations -> Gradients) x L -> Update          in training
             Resend after Activations, if they cannot be decoded
    Ready -> Activations x batches -> Score                    in evaluation
    Ready -> Update, or Score                                  where it holds the whole model
    Ready -> LabelledActivations x L -> Update, or Score       in a two-part split; see `disclosed`

A device that asks anything else, or sends what cannot be used, is refused and left out of the
round; the others are not touched. Shapes: T tokens of a batch without padding, D hidden size.
"""

import hashlib
from collections.abc import Callable, Mapping, MutableMapping

from torch import Tensor, nn

from elsa.core.aggregate import NewMean, WeightedMean
from elsa.core.codec import HopCodecs, all_finite
from elsa.core.lowrank import padded, rank_of
from elsa.errors import AdapterError, BehaviourError, ProtocolError
from elsa.model.segments import Top
from elsa.roles import disclosed
from elsa.roles.edgemodel import EdgeModel
from elsa.roles.edgeround import EdgeRound, Held, Learned
from elsa.roles.flights import Flights
from elsa.roles.hops import Hops
from elsa.roles.parcel import unwrap, wrap
from elsa.roles.session import Gather, Session, adapters_for, reach_of
from elsa.roles.trunk import TrunkAdapters
from elsa.wire.messages import (
    Accepted,
    Activations,
    DeviceScore,
    EdgeScores,
    EdgeUpdate,
    EvaluationOrder,
    Gradients,
    LabelledActivations,
    LocalPlan,
    Message,
    Ready,
    Resend,
    RoundOrder,
    Score,
    Update,
)
from elsa.wire.watching import Behaviours, Verdicts


class Edge:
    """One edge server."""

    def __init__(
        self,
        name: str,
        model: EdgeModel,
        trunks: TrunkAdapters,
        codecs: Callable[[str], HopCodecs],
        new_mean: NewMean = WeightedMean,
        flights: Flights | None = None,
    ) -> None:
        """Set up.

        Args:
            name: of the edge.
            model: what it knows of the model.
            trunks: owner of the trunk adapters.
            codecs: makes those of a device, which may remember what it sent.
            new_mean: makes an edge round's mean over devices.
            flights: keeps updates that are late on a virtual clock; then each update counts only
                once `arrive` says that it has come. None takes it as it is sent.
        """
        self.name = name
        self._model = model
        self._trunks = trunks
        self._new_codecs = codecs
        self._new_mean = new_mean
        self._flights = flights
        self._codecs: dict[str, HopCodecs] = {}
        self._round: EdgeRound | None = None

    # Towards the cloud.

    def open(self, order: RoundOrder | EvaluationOrder) -> None:
        """Take the cloud's order; edge round 0 begins."""
        self._round = EdgeRound(order, unwrap(order.adapters), self._new_mean())
        if isinstance(order, RoundOrder):
            self._trunks.open(self._round.adapters, order.devices)
            if self._flights:
                self._flights.open(order.round * order.edge_rounds)

    def close_edge_round(self) -> None:
        """Average what the devices sent; the next edge round starts from it."""
        self._average({})

    def _average(self, trust: Mapping[str, float]) -> None:
        """End the edge round; an update counts as its device is trusted, 1 if nothing is said."""
        current, flights = self._current, self._flights
        counted = flights.average() if flights else dict.fromkeys(current.held, 0)
        for peer in (it for it in current.order.devices if it in counted):
            if held := current.held.pop(peer, None):
                self._enter(peer, held, trust.get(peer, 1.0))
                learned = held.learned
            else:
                assert flights
                learned = flights.take(peer, counted[peer], current.adapters, current.mean)
                current.weights[peer] = float(learned.rows)
            if flights:
                current.count(peer, learned)
        for peer, held in current.held.items():
            assert flights
            trunk = flights.put(peer, held, current.adapters)
            self._trunks.contribute(peer, held.learned.rows, trunk)
        self._trunks.close(current.mean)
        current.average(self._new_mean)
        self._trunks.open(current.adapters, current.remaining)

    @property
    def watched(self) -> bool:
        """Whether the edge round must end with `behaviours` and `settle`."""
        order = self._current.order
        return isinstance(order, RoundOrder) and self._current.edge_round < order.watched

    def behaviours(self) -> Behaviours:
        """What the adapters that the devices sent make of the probes; `settle` goes on.

        A device whose answers are not finite is left out of the rest of the round.
        """
        current = self._current
        if self._model.probing is None or not isinstance(current.order, RoundOrder):
            raise ProtocolError(f"edge {self.name} has no probes to watch devices with")
        changes, seen = self._model.probing().since(current.adapters), []
        whole = current.order.fingerprints and current.edge_round == 0
        for peer, held in list(current.held.items()):
            adapters = {**current.adapters, **held.adapters, **self._trunks.adapters(peer)}
            try:
                head = held.learned.head
                told = changes.behaviour(peer, head, held.split, adapters, whole=whole)
                seen.append(told)
            except BehaviourError as error:
                self.drop(peer, f"{type(error).__name__}: {error}")
        return Behaviours(current.order.round, current.edge_round, tuple(seen))

    def settle(self, verdicts: Verdicts) -> None:
        """Average what the devices sent as far as they are trusted; see `close_edge_round`.

        Raises:
            ProtocolError: the verdicts are of another edge round, or of other devices.
        """
        current = self._current
        if (verdicts.round, verdicts.edge_round) != (current.order.round, current.edge_round):
            raise ProtocolError(
                f"verdicts of round {verdicts.round}.{verdicts.edge_round} came where "
                f"{current.order.round}.{current.edge_round} was due"
            )
        trust = {it.device: it.trust for it in verdicts.verdicts}
        if trust.keys() != current.held.keys():
            odd = sorted(trust.keys() ^ current.held.keys())
            raise ProtocolError(f"verdicts lack or add device {', '.join(odd[:3])}")
        self._average(trust)

    def close(self) -> EdgeUpdate | EdgeScores:
        """End the order: what its devices learned, or how well they did."""
        current, self._round = self._current, None
        return current.outcome(self._model.sent)

    # Towards the devices.

    def handle(self, peer: str, request: Message) -> Message:
        """Answer a device.

        Raises:
            ElsaError: the request cannot be granted; whoever carries it refuses it, and calls
                `lose` for the device.
        """
        match request:
            case Ready():
                return self._admit(peer, request)
            case Activations() | LabelledActivations():
                return self._forward(peer, request)
            case Resend():
                return self._session(peer).send_again(request)
            case Gradients():
                return self._session(peer).backward(request, self._gather(peer, request))
            case Update():
                return self._take_update(peer, request)
            case Score():
                return self._take_score(peer, request)
            case _:
                raise ProtocolError(f"{type(request).__name__} is nothing a device may send")

    def lose(self, peer: str, reason: str) -> None:
        """Leave a device out of the rest of the round, for a reason that the cloud is told."""
        if self._round is None or peer not in self._round.standings:
            return
        self._round.sessions.pop(peer, None)
        self._round.standings[peer].lost = reason
        if isinstance(self._round.order, RoundOrder) and peer not in self._round.held:
            self._trunks.lose(peer)

    def arrive(self, peer: str) -> bool:
        """On a virtual clock, the update of a device has come; whether there is one."""
        return self._flights is not None and self._flights.come(peer)

    def drop(self, peer: str, reason: str) -> None:
        """Leave a device out, as `lose` does, and its update too if that still waits."""
        self._current.held.pop(peer, None)
        if self._flights:
            self._flights.lose(peer)
        self.lose(peer, reason)

    def flights(self) -> dict[str, Tensor]:
        """Late updates, to keep across rounds."""
        return self._flights.state() if self._flights else {}

    @property
    def pending(self) -> int:
        """Forward passes whose backward passes are due; each holds its activations."""
        sessions = list(self._round.sessions.values()) if self._round else []
        return sum(session.waiting for session in sessions)

    def memory(self) -> dict[str, Tensor]:
        """What its codecs remember of each device's samples, under "<device>/<hop>/<part>"."""
        return {
            f"{peer}/{key}": value
            for peer, codecs in self._codecs.items()
            for key, value in codecs.state().items()
        }

    def moments(self) -> dict[str, Tensor]:
        """Optimizer state to keep across rounds."""
        return self._trunks.moments()

    def moments_of(self, peer: str) -> Mapping[str, Tensor]:
        """Optimizer state of a device's own copy of the trunk adapters; empty if it has none."""
        return self._trunks.moments_of(peer)

    def set_moments(self, peer: str, moments: Mapping[str, Tensor]) -> None:
        """Replace what `moments_of` gives, between rounds."""
        self._trunks.set_moments(peer, moments)

    def keep_moments_in(self, store: MutableMapping[str, Mapping[str, Tensor]]) -> None:
        """Keep optimizer state there from now on, by owner; what is there already is kept."""
        self._trunks.keep_moments_in(store)

    def restore(
        self,
        moments: Mapping[str, Tensor] | None,
        memory: Mapping[str, Tensor],
        flights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Go on from an earlier `moments`, `memory` and `flights`; None leaves the moments."""
        if moments is not None:
            self._trunks.restore(moments)
        if self._flights:
            self._flights.restore(flights or {})
        self._codecs = {}
        for peer in dict.fromkeys(key.partition("/")[0] for key in memory):
            start = len(peer) + 1
            own = {key[start:]: value for key, value in memory.items() if key[:start] == f"{peer}/"}
            self._codecs_of(peer).restore(own)

    @property
    def _current(self) -> EdgeRound:
        if self._round is None:
            raise ProtocolError(f"edge {self.name} has no round open")
        return self._round

    def _session(self, peer: str) -> Session:
        session = self._current.sessions.get(peer)
        if session is None:
            raise ProtocolError(f"device {peer} has no session in this edge round; send Ready")
        return session

    def _admit(self, peer: str, request: Ready) -> LocalPlan:
        current, model = self._current, self._model
        if peer not in current.standings or current.standings[peer].lost:
            raise ProtocolError(f"device {peer} does not take part in round {current.order.round}")
        if (request.round, request.edge_round) != (current.order.round, current.edge_round):
            raise ProtocolError(
                f"device {peer} is at round {request.round}.{request.edge_round}, "
                f"the edge at {current.order.round}.{current.edge_round}"
            )
        if peer in current.finished or peer in current.sessions:
            raise ProtocolError(f"device {peer} already takes part in this edge round")
        split, trunk = model.part(peer, request)
        kept = trunk.adapter_names if trunk else ()
        own = adapters_for(peer, request, current.adapters, kept)
        reach, training = reach_of(peer, request), isinstance(current.order, RoundOrder)
        parameters: Mapping[str, nn.Parameter]
        if training:
            parameters = self._trunks.join(peer, kept).parameters
        else:
            parameters = {
                name: nn.Parameter(current.adapters[name], requires_grad=False) for name in kept
            }
        seed = self._session_seed(peer, training=training)
        current.sessions[peer] = Session(
            peer=peer,
            split=split,
            trunk=trunk,
            parameters=parameters,
            training=training,
            shapes={name: value.shape for name, value in own.items()},
            hops=Hops(self._codecs_of(peer), seed, model.hidden),
            frozen=request.frozen,
            reach=reach,
            head=request.head,
            longest=model.max_tokens,
            dtype=model.dtype,
            in_flight=model.in_flight,
        )
        steps = current.order.local_steps if isinstance(current.order, RoundOrder) else 0
        return LocalPlan(request.round, request.edge_round, steps, seed, wrap(own, model.sent))

    def _codecs_of(self, peer: str) -> HopCodecs:
        if peer not in self._codecs:
            self._codecs[peer] = self._new_codecs(peer)
        return self._codecs[peer]

    def _session_seed(self, peer: str, *, training: bool) -> int:
        """A number of 32 bits that no other session of the run is likely to have."""
        current = self._current
        words = (self._model.seed, peer, current.order.round, current.edge_round, training)
        return int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=4).digest())

    def _forward(self, peer: str, request: Activations | LabelledActivations) -> Message:
        session, order = self._session(peer), self._current.order
        session.check_turn(request)
        if isinstance(order, RoundOrder):
            if request.step >= order.local_steps:
                raise ProtocolError(
                    f"device {peer}: its {order.local_steps} local steps are done; send Update"
                )
            self._trunks.check_turn(peer, request.step)
        if isinstance(request, Activations):
            return session.forward(request)
        assert isinstance(session.trunk, Top)
        if session.training:
            return disclosed.learn(session, session.trunk, request, self._gather(peer, request))
        return disclosed.score(session, session.trunk, request, order.round)

    def _gather(self, peer: str, request: Gradients | LabelledActivations) -> Gather:
        return lambda gradients, rows: self._trunks.gather(peer, request.step, gradients, rows)

    def _take_update(self, peer: str, request: Update) -> Accepted:
        session, current = self._session(peer), self._current
        order = current.order
        due = order.local_steps if isinstance(order, RoundOrder) and session.steps_here else 0
        if not isinstance(order, RoundOrder) or session.step < due:
            raise ProtocolError(f"device {peer}: update before its local steps are done")
        if (request.round, request.edge_round) != (order.round, current.edge_round):
            raise ProtocolError(
                f"device {peer}: update of round {request.round}.{request.edge_round}, "
                f"where {order.round}.{current.edge_round} is due"
            )
        session.check_update(request)
        adapters = padded(unwrap(request.adapters), rank_of(current.adapters))
        learned = Learned(request.rows, request.samples, request.loss, session.head)
        held = Held(adapters, session.split, learned)
        if self.watched or self._flights:
            trunk = self._trunks.adapters(peer) if self._flights else {}
            if not all(map(all_finite, (*held.adapters.values(), *trunk.values()))):
                raise AdapterError(f"device {peer}: update holds NaN or infinity")
            current.held[peer] = held
        else:
            self._enter(peer, held, 1.0)
        current.finish(peer, learned.rows)
        if self._flights:
            self._flights.begin(peer)
        else:
            current.count(peer, learned)
        return Accepted()

    def _enter(self, peer: str, held: Held, trust: float) -> None:
        """Let a device's update count, by its rows and its trust; without trust it is dropped."""
        current = self._current
        weight = held.learned.rows * trust
        if weight > 0:
            current.mean.add(held.adapters, weight, peer)
            self._trunks.contribute(peer, weight, current.mean)
            current.weights[peer] = float(weight)
        else:
            self._trunks.lose(peer)

    def _take_score(self, peer: str, request: Score) -> Accepted:
        self._session(peer)
        current = self._current
        if not isinstance(current.order, EvaluationOrder) or request.round != current.order.round:
            raise ProtocolError(f"device {peer}: a score that nobody asked for")
        del current.sessions[peer]
        current.finished.add(peer)
        current.scores[peer] = DeviceScore(
            peer, request.items, request.correct, request.loss, request.texts, request.whole
        )
        return Accepted()

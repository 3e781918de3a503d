"""Every message of the protocol, as frozen dataclasses.

Between a device and its edge server the device always asks and the edge answers:

    device                         edge server
    Register           ->                           over a network: what it takes for granted
                       <-          Welcome
    Next               ->                           over a network: it is free
                       <-          Task             train or evaluate as follows, wait, or end
    Ready              ->
                       <-          LocalPlan        adapters of bottom and top
    Activations (h1)   ->                           hop 1, for each local step
                       <-          Activations (h2) hop 2
    [Resend            ->]                          either may ask for the other's again
    Gradients (g2)     ->                           hop 3
                       <-          Gradients (g1)   hop 4
    Update             ->                           adapters of bottom and top, after L steps
                       <-          Accepted

A step whose batch goes in several micro-batches has hops 1 to 4 for each of them, and a device may
ask for the next before it has an answer; answers come in the order of the requests.

Between the cloud and an edge server, once a global round:

    cloud                          edge server
    RoundOrder         ->                           global adapters
    [                  <-          Behaviours       after an edge round that is watched:
    Verdicts           ->                           how its devices behave, and their trust]
                       <-          EdgeUpdate       their average over the edge's devices
    EvaluationOrder    ->                           global adapters
                       <-          EdgeScores       how well each device does with them

A device that holds the whole model sends no activations: Ready, LocalPlan, Update. In a two-part
split, which ELSA is compared with and no edge allows unless its config says so, the edge holds the
head and the device discloses its labels:

    LabelledActivations ->                          h1 and labels
                       <-          Gradients (g1)   with the loss; in evaluation Score

To evaluate, a device asks with Ready, gets a LocalPlan of no steps, exchanges hops 1 and 2 for its
held-out rows, and ends with Score instead of Update.

Any request may be answered by a Refusal instead. Labels, token ids and text are in no other
message.
The sender is known from the link, never from the message.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from elsa.core.codec import Packet
from elsa.wire.places import Clock, Move, Ping, Presence, Present, RollCall, Route
from elsa.wire.watching import Behaviours, DeviceBehaviour, DeviceVerdict, Verdicts


@dataclass(frozen=True)
class Register:
    """A device comes to its edge server.

    Attributes:
        terms: settings that both ends must have alike, by name.
        routes: to the edge servers that it reaches, this one among them; empty where it measured
            none.
    """

    terms: Mapping[str, str]
    routes: Sequence[Route] = ()


@dataclass(frozen=True)
class Welcome:
    """A device may take part.

    Attributes:
        axes: public axes [D, R] that codecs of hidden states turn onto, by hop; none where no
            codec needs them. The edge's own: two machines that compute them from the same public
            text may differ in the last bit.
    """

    axes: Mapping[str, Tensor]


@dataclass(frozen=True)
class Next:
    """The device is free for a task; it asks again when there is none for a while."""


@dataclass(frozen=True)
class Task:
    """What a device shall do.

    Attributes:
        what: "train" or "evaluate" in the round meant; "wait" and ask again; "move" to another
            edge server; "end": the run is over.
        round, edge_round: the edge round meant.
        edge: where to move; empty for all else.
    """

    what: str
    round: int
    edge_round: int
    edge: str = ""


@dataclass(frozen=True)
class Ready:
    """A device can start an edge round.

    Attributes:
        round: global round, from 0.
        edge_round: edge round inside it, from 0.
        bottom: p, blocks it holds below the first cut.
        top: q, blocks it holds above the second cut.
        frozen: whether nothing learns below the first cut; hop 4 is then no gradient, but Accepted.
        reach: what it needs of each sequence at the second cut: "all" tokens, "some" of them, the
            "first" or "last" one, or their "mean"; hops 2 and 3 carry only that.
        rank: r of the adapters it trains; 0 for that of the global ones.
        head: task whose head it trains; empty where all devices share one head.
        labelled: whether the head is at the edge, which is then told the labels.
    """

    round: int
    edge_round: int
    bottom: int
    top: int
    frozen: bool = False
    reach: str = "all"
    rank: int = 0
    head: str = ""
    labelled: bool = False


@dataclass(frozen=True)
class LocalPlan:
    """What a device shall do in an edge round.

    Attributes:
        round, edge_round: the edge round meant.
        local_steps: L, optimizer steps to take.
        seed: from which both ends draw what a codec needs at random; no secret.
        adapters: tensors of the device's own blocks and head, by global adapter name.
        token: what the device shows with each request of this edge round; empty in a simulation.
    """

    round: int
    edge_round: int
    local_steps: int
    seed: int
    adapters: Mapping[str, Tensor]
    token: str = ""


@dataclass(frozen=True)
class Activations:
    """Hidden states at a cut: hop 1 (device to edge) and hop 2 (edge to device).

    Attributes:
        step: local step, from 0; an answer carries the step it answers.
        training: whether gradients will follow; False in evaluation.
        lengths: tokens of each sequence of the batch.
        packet: encoded hidden states [T, D], T the sum of lengths.
        numbers: of each sequence, the same whenever it comes again; for codecs that remember.
            Empty where none does, and in evaluation.
        token: of the edge round; empty in an answer.
        marks: of each token whether the device wants it back, a bit each, at least one of each
            sequence; where it asked for "some" tokens, else empty, as in an answer.
        micro_batch: of that step, from 0; an answer carries the one it answers.
        more: whether another micro-batch of that step follows.
    """

    step: int
    training: bool
    lengths: Sequence[int]
    packet: Packet
    numbers: Sequence[int] = ()
    token: str = ""
    marks: bytes = b""
    micro_batch: int = 0
    more: bool = False


@dataclass(frozen=True)
class LabelledActivations:
    """Hidden states at the only cut of a two-part split, with the labels: they are disclosed.

    Attributes:
        step: local step, from 0.
        training: whether gradients shall come back; else a Score of these rows.
        lengths: tokens of each sequence of the batch.
        labels: a class for each sequence; of a language model a token id for each token, -100
            where it does not count.
        packet: encoded hidden states [T, D], T the sum of lengths.
        token: of the edge round.
    """

    step: int
    training: bool
    lengths: Sequence[int]
    labels: Sequence[int]
    packet: Packet
    token: str = ""


@dataclass(frozen=True)
class Resend:
    """What came last builds on hidden states that are not held here; send it again, in full.

    An edge server answers with it, and the device sends its activations again; a device asks it,
    and the edge answers with its own again.

    Attributes:
        step: local step of the activations meant.
        token: of the edge round; empty in an answer.
    """

    step: int
    token: str = ""
    micro_batch: int = 0


@dataclass(frozen=True)
class Gradients:
    """Gradients of the loss at a cut: hop 3 (device to edge) and hop 4 (edge to device).

    Attributes:
        step: local step they belong to.
        packet: encoded gradients, of the shape of the activations at that cut.
        loss: mean loss of the batch, where the edge takes it; else 0.
        token: of the edge round; empty in an answer.
        micro_batch: of that step.
        micro_batch: of that step.
    """

    step: int
    packet: Packet
    loss: float = 0.0
    token: str = ""
    micro_batch: int = 0


@dataclass(frozen=True)
class Update:
    """What a device learned in an edge round.

    Attributes:
        round, edge_round: the edge round meant.
        adapters: tensors of the device's own blocks and head, by global adapter name.
        rows: training rows the device holds; its weight in the average.
        samples: rows it trained on in this edge round, repeats counted.
        loss: mean training loss over those samples.
        token: of the edge round.
    """

    round: int
    edge_round: int
    adapters: Mapping[str, Tensor]
    rows: int
    samples: int
    loss: float
    token: str = ""


@dataclass(frozen=True)
class Score:
    """How well the adapters do on a device's held-out rows.

    Attributes:
        round: global round whose adapters were evaluated.
        items: predictions made: rows for classification, target tokens for a language model.
        correct: how many of them were right.
        loss: mean loss over the items.
        texts: texts with a prediction.
        whole: how many of them have no wrong one: answers that greedy decoding would give.
        token: of the edge round.
    """

    round: int
    items: int
    correct: int
    loss: float
    texts: int = 0
    whole: int = 0
    token: str = ""


@dataclass(frozen=True)
class Accepted:
    """The request is done and there is nothing to say."""


@dataclass(frozen=True)
class Refusal:
    """The request is refused; it ends the sender's session.

    Attributes:
        error: name of the error class of `elsa.errors`.
        reason: what was wrong, for a person.
    """

    error: str
    reason: str


@dataclass(frozen=True)
class RoundOrder:
    """What an edge server shall do in a global round.

    Attributes:
        round: global round, from 0.
        edge_rounds: E, averages to take at the edge before reporting.
        local_steps: L, optimizer steps of a device in each edge round.
        devices: names of the devices that take part at this edge.
        adapters: the global adapters, by global adapter name.
        watched: edge rounds, the first ones, that the edge ends with Behaviours and averages by
            the Verdicts that answer them.
        fingerprints: whether the first Behaviours shall hold fingerprints.
    """

    round: int
    edge_rounds: int
    local_steps: int
    devices: Sequence[str]
    adapters: Mapping[str, Tensor]
    watched: int = 0
    fingerprints: bool = False


@dataclass(frozen=True)
class DeviceReport:
    """What an edge tells the cloud about one of its devices in a global round.

    Attributes:
        device: its name.
        rows: training rows it holds.
        samples: rows it trained on in the round, repeats counted.
        loss: mean training loss over those samples.
        lost: why it did not finish the round; empty if it did.
    """

    device: str
    rows: int
    samples: int
    loss: float
    lost: str = ""


@dataclass(frozen=True)
class HeadWeight:
    """How much the head of a task counts in an edge's average.

    Attributes:
        head: the task's name.
        weight: sum of the weights of the devices that trained it.
    """

    head: str
    weight: float


@dataclass(frozen=True)
class EdgeUpdate:
    """What an edge's devices learned in a global round.

    Attributes:
        round: global round.
        adapters: average over the devices, by global adapter name; without the heads of tasks
            that none of them trained.
        weight: sum of the devices' weights in that average.
        reports: one for each device that was asked to take part.
        heads: one for each head of a task among the adapters.
    """

    round: int
    adapters: Mapping[str, Tensor]
    weight: float
    reports: Sequence[DeviceReport]
    heads: Sequence[HeadWeight] = ()


@dataclass(frozen=True)
class EvaluationOrder:
    """Evaluate these adapters on the devices' held-out rows; nothing is trained.

    Attributes:
        round: global round that made the adapters.
        devices: names of the devices that take part at this edge.
        adapters: the global adapters, by global adapter name.
    """

    round: int
    devices: Sequence[str]
    adapters: Mapping[str, Tensor]


@dataclass(frozen=True)
class DeviceScore:
    """What an edge tells the cloud about one of its devices in an evaluation.

    Attributes:
        device: its name.
        items, correct, loss, texts, whole: as in Score.
    """

    device: str
    items: int
    correct: int
    loss: float
    texts: int = 0
    whole: int = 0


@dataclass(frozen=True)
class EdgeScores:
    """The scores of an edge's devices.

    Attributes:
        round: global round whose adapters were evaluated.
        scores: one for each device that answered.
    """

    round: int
    scores: Sequence[DeviceScore]


Row = (
    DeviceReport
    | DeviceScore
    | HeadWeight
    | DeviceBehaviour
    | DeviceVerdict
    | Route
    | Move
    | Present
)
"""A line of a list inside a message."""

Message = (
    Register
    | Welcome
    | Next
    | Task
    | Ready
    | LocalPlan
    | Activations
    | LabelledActivations
    | Resend
    | Gradients
    | Update
    | Score
    | Accepted
    | Refusal
    | RoundOrder
    | EdgeUpdate
    | EvaluationOrder
    | EdgeScores
    | Behaviours
    | Verdicts
    | Ping
    | Clock
    | RollCall
    | Presence
)

"""What an edge server sees of its devices: a recorded transcript, decoded.

Who listens on the wire sees frames; the edge also decodes them, and remembers what its codecs
remember. So the frames of a device are replayed in order through codecs of its own, made from the
public words of `[wire]`; where a codec builds on what was not recorded, that tensor is missing
here. Hidden states that the edge sent are read as the device read them.

Shapes: T tokens of a batch without padding, D hidden size; R rows of the batch at the second cut.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from elsa.core.codec import HopCodecs, Packet, frame_of
from elsa.core.ragged import Reach, chosen_by, reached_lengths
from elsa.errors import CodecError, RunError
from elsa.wire.messages import Activations, Gradients, LocalPlan, Message, Ready, Update
from elsa.wire.transcript import Recording, recordings
from elsa.wire.transport import Direction

CodecsOf = Callable[[], HopCodecs]
"""Makes the codecs of one end, which remember nothing yet."""


@dataclass
class Step:
    """A local step as the edge sees it; a tensor that cannot be read is None.

    Attributes:
        lengths: tokens of each text.
        h1: hidden states at the first cut [T, D], as they arrived.
        h2: hidden states at the second cut [R, D], as they were sent.
        g2: gradients at the second cut [R, D], as they arrived.
        numbers: of each text, where a codec remembers; else empty.
        chosen: which tokens [T] the device wanted at the second cut, where that was some of them.
    """

    lengths: Sequence[int]
    h1: Tensor | None = None
    h2: Tensor | None = None
    g2: Tensor | None = None
    numbers: Sequence[int] = ()
    chosen: Tensor | None = None


@dataclass
class Session:
    """An edge round of a device as the edge sees it.

    Attributes:
        edge, device: who talked.
        round, edge_round: when.
        reach: what the device uses of each text at the second cut.
        adapters: of the device's own blocks and head, as the edge sent them at the beginning.
        steps: local steps, in order.
        update: the same adapters as the device sent them at the end; empty if it did not.
    """

    edge: str
    device: str
    round: int
    edge_round: int
    reach: Reach
    adapters: Mapping[str, Tensor]
    steps: list[Step] = field(default_factory=list)
    update: Mapping[str, Tensor] = field(default_factory=dict)


def read_sessions(folder: Path, codecs_of: CodecsOf) -> list[Session]:
    """All that a transcript shows, by edge and device, in the order in which it happened.

    Raises:
        RunError: there is no transcript, or it is broken.
    """
    found, codecs, last = [], codecs_of(), None
    for recording in recordings(folder):
        if (recording.edge, recording.device) != last:
            codecs, last = codecs_of(), (recording.edge, recording.device)
        session = _session(recording, codecs)
        if session is not None:
            found.append(session)
    if not found:
        raise RunError(f"{folder}: no transcript; set audit.record_rounds to record one")
    return found


def _session(recording: Recording, codecs: HopCodecs) -> Session | None:
    messages = recording.messages()
    opening = _opening(messages)
    if opening is None:
        return None
    ready, plan = opening
    reach: Reach = ready.reach  # type: ignore[assignment]  # the edge has refused any other
    session = Session(
        recording.edge,
        recording.device,
        recording.round,
        recording.edge_round,
        reach,
        plan.adapters,
    )
    for way, message in messages:
        match message:
            case Activations(step=number) if way == "up":
                step = Step(message.lengths, numbers=message.numbers)
                step.chosen = chosen_by(message.marks, sum(message.lengths))
                session.steps[number:] = [step]
                step.h1 = _read(codecs, "h1", message.packet, plan.seed, number, step, step.lengths)
            case Activations(step=number) if number < len(session.steps):
                step = session.steps[number]
                step.h2 = _read(
                    codecs, "h2", message.packet, plan.seed, number, step, message.lengths
                )
            case Gradients(step=number) if way == "up" and number < len(session.steps):
                step = session.steps[number]
                rows = reached_lengths(step.lengths, reach, step.chosen)
                step.g2 = _read(codecs, "g2", message.packet, plan.seed, number, step, rows)
            case Update():
                session.update = message.adapters
            case _:
                pass
    return session


def _opening(messages: Iterator[tuple[Direction, Message]]) -> tuple[Ready, LocalPlan] | None:
    first, second = next(messages, (None, None))[1], next(messages, (None, None))[1]
    if isinstance(first, Ready) and isinstance(second, LocalPlan):
        return first, second
    return None


def _read(
    codecs: HopCodecs,
    hop: str,
    packet: Packet,
    seed: int,
    number: int,
    step: Step,
    lengths: Sequence[int],
) -> Tensor | None:
    frame = frame_of(lengths, seed, number, hop, step.numbers)
    try:
        values: Tensor = getattr(codecs, hop).decode(packet, frame)
    except CodecError:  # above all a packet that builds on what was not recorded
        return None
    return values.float()

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

import torch
from torch import Tensor

from elsa.core.codec import HopCodecs, Packet, frame_of
from elsa.core.ragged import Reach, chosen_by, reached_lengths
from elsa.errors import CodecError, RunError
from elsa.wire.messages import Activations, Gradients, LocalPlan, Message, Ready, Update
from elsa.wire.transcript import Recording, recordings
from elsa.wire.transport import Direction

CodecsOf = Callable[[], HopCodecs]
"""Makes the codecs of one end, which remember nothing yet."""

Place = tuple[int, int]
"""Number of a local step, and of a micro-batch of it."""


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
    steps: dict[Place, Step] = {}
    for way, message in messages:
        match message:
            case Activations(step=number, micro_batch=part) if way == "up":
                step = steps[number, part] = Step(message.lengths, numbers=message.numbers)
                step.chosen = chosen_by(message.marks, sum(message.lengths))
                place, sent = (number, part), message.packet
                step.h1 = _read(codecs, "h1", sent, plan.seed, place, step, step.lengths)
            case Activations(step=number, micro_batch=part) if (number, part) in steps:
                place, sent = (number, part), message.packet
                step = steps[place]
                step.h2 = _read(codecs, "h2", sent, plan.seed, place, step, message.lengths)
            case Gradients(step=number, micro_batch=part) if (
                way == "up" and (number, part) in steps
            ):
                place, sent = (number, part), message.packet
                step = steps[place]
                rows = reached_lengths(step.lengths, reach, step.chosen)
                step.g2 = _read(codecs, "g2", sent, plan.seed, place, step, rows)
            case Update():
                session.update = message.adapters
            case _:
                pass
    for number in sorted({number for number, _ in steps}):
        parts = [steps[place] for place in sorted(steps) if place[0] == number]
        session.steps.append(parts[0] if len(parts) == 1 else _joined(parts))
    return session


def _joined(parts: Sequence[Step]) -> Step:
    """The step of these micro-batches, as if it had come whole."""

    def row(tensors: list[Tensor | None]) -> Tensor | None:
        held = [it for it in tensors if it is not None]
        return torch.cat(held) if len(held) == len(tensors) else None

    return Step(
        tuple(length for it in parts for length in it.lengths),
        row([it.h1 for it in parts]),
        row([it.h2 for it in parts]),
        row([it.g2 for it in parts]),
        tuple(number for it in parts for number in it.numbers),
        row([it.chosen for it in parts]),
    )


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
    place: Place,
    step: Step,
    lengths: Sequence[int],
) -> Tensor | None:
    frame = frame_of(lengths, seed, place[0], hop, step.numbers, place[1])
    try:
        values: Tensor = getattr(codecs, hop).decode(packet, frame)
    except CodecError:  # above all a packet that builds on what was not recorded
        return None
    return values.float()

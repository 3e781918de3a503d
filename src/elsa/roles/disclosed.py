"""A two-part split at its edge server: the head is here, and the device discloses its labels.

This is what SplitLoRA (Lin et al. 2024, arXiv 2407.00952) and vanilla split learning do, and what
ELSA is compared with. No edge has a segment for it unless its config says so.

Shapes: T tokens of a batch without padding, D hidden size.
"""

import torch
from torch import Tensor

from elsa.core.ragged import flat_index, mask_of, unpack
from elsa.core.score import Tally
from elsa.data.batches import IGNORE
from elsa.errors import ProtocolError
from elsa.model.segments import Top
from elsa.model.tasks import Classification
from elsa.roles.session import Gather, Session
from elsa.wire.messages import Gradients, LabelledActivations, Score


def learn(session: Session, end: Top, request: LabelledActivations, gather: Gather) -> Gradients:
    """A local step: both passes of the edge's part; g1 goes to the device, with the loss.

    Raises:
        ProtocolError: the labels are not those of the task.
        CodecError: the hidden states cannot be used, or their gradients overflow.
    """
    h1, mask, labels = _read(session, end, request)
    h1.requires_grad_()
    loss = end.learn(_padded(h1, request), mask, labels)
    names = end.adapter_names
    parameters = [session.parameters[name] for name in names]
    found = torch.autograd.grad(loss, [*parameters, h1], allow_unused=True)
    session.finish(names, found[:-1], len(request.lengths), gather)
    packet = session.hops.seal("g1", found[-1], request.lengths, request.step)
    return Gradients(request.step, packet, float(loss.detach()))


def score(session: Session, end: Top, request: LabelledActivations, round_: int) -> Score:
    """How well the adapters do on a batch; raises as `learn`."""
    h1, mask, labels = _read(session, end, request)
    counted: Tally = end.score(_padded(h1, request), mask, labels)
    session.step += 1
    return Score(
        round_, counted.items, counted.correct, counted.mean_loss, counted.texts, counted.whole
    )


def _read(
    session: Session, end: Top, request: LabelledActivations
) -> tuple[Tensor, Tensor, Tensor]:
    """h1 [T, D], the mask [B, S], and labels [B] or [B, S]."""
    lengths = request.lengths
    session.check_lengths(lengths)
    h1 = session.hops.unseal("h1", request.packet, lengths, request.step, dtype=session.dtype)
    end.bind(session.parameters)
    return h1, mask_of(lengths), _labels(session, end, request)


def _labels(session: Session, end: Top, request: LabelledActivations) -> Tensor:
    """The labels as the task takes them."""
    labels, lengths = torch.tensor(request.labels, dtype=torch.int64), request.lengths
    task, one_each = end.task, isinstance(end.task, Classification)
    classes = task.labels if isinstance(task, Classification) else end.checkpoint.vocabulary
    known = (labels >= 0) & (labels < classes)
    if not one_each:
        known |= labels == IGNORE
    if len(labels) != (len(lengths) if one_each else sum(lengths)) or not bool(known.all()):
        raise ProtocolError(
            f"device {session.peer}: labels that are not those of this task; allowed: one of 0 to "
            f"{classes - 1} for each {'sequence' if one_each else 'token'}"
        )
    if one_each:
        return labels
    padded = torch.full((len(lengths) * max(lengths),), IGNORE)
    return padded.index_copy(0, flat_index(lengths), labels).view(len(lengths), max(lengths))


def _padded(h1: Tensor, request: LabelledActivations) -> Tensor:
    lengths = request.lengths
    return unpack(h1, flat_index(lengths), len(lengths), max(lengths))

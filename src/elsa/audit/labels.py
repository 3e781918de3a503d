"""Reading labels: from the gradients that a device sends for the second cut, and without any.

The edge knows what it sent down (h2) and, from the adapters that pass through it, the device's
top as it was at the beginning of the edge round. "gradients" works out what gradient each label
would have given for a text and takes the label whose gradient points most nearly where the real
one does: for a head on pooled states the gradient is a multiple of W^T (p - y), and of p - y only
the entry of the right label is negative. Its adaptive form knows of clipping and noise, and takes
the label that is most probable given the noisy gradient, where the trained model's own prediction
says how probable each was before. "known labels" holds the labels of some texts, and gives
every other text that of the known text whose summed gradient points most nearly the same way; a
rotation that is the same for both changes nothing in that. "predictions" reads nothing that labels
have touched but the trained model itself: it runs the top over the h2 that the edge sent, as
anybody may who holds both.

Shapes: B texts, R rows of a batch at the second cut, D hidden size, C labels.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from elsa.audit.transcript import Session, Step
from elsa.core.noise import Noise
from elsa.core.ragged import flat_index, mask_of, reached_lengths, unpack
from elsa.model.segments import Top


def from_gradients(top: Top, session: Session, labels: int) -> list[Tensor | None]:
    """Guessed labels [B] of each step; None where h2 or g2 could not be read."""
    top.bind(session.adapters)
    return [_matched(top, session, step, labels) for step in session.steps]


def despite_noise(
    top: Top, session: Session, labels: int, noise: Noise, adapters: Mapping[str, Tensor]
) -> list[Tensor | None]:
    """Guessed labels [B] of each step, where gradients were clipped and noise was added.

    Args:
        top: the public one.
        session: with the top's adapters as the edge sent them.
        labels: C.
        noise: clipping and noise.
        adapters: of the top as it became.
    """
    top.bind(adapters)
    priors = [_foretold(top, session, step) for step in session.steps]
    top.bind(session.adapters)
    found: list[Tensor | None] = []
    for step, prior in zip(session.steps, priors, strict=True):
        if step.h2 is None or step.g2 is None or prior is None:
            found.append(None)
            continue
        rows = _rows(session, step)
        nothing, deviation = torch.zeros_like(step.g2), noise.ratio * noise.norm
        scores = []
        for label, gradient in enumerate(_gradients(top, session, step, labels)):
            shown = noise.texts(gradient / len(rows), rows, nothing)
            near = _by_text((step.g2 - shown / 2) * shown, rows) / deviation**2
            scores.append(near + prior[:, label])
        found.append(torch.stack(scores).argmax(0))
    return found


def predicted(top: Top, adapters: Mapping[str, Tensor], session: Session) -> list[Tensor | None]:
    """Predicted labels [B] of each step by the top with these adapters; None where h2 is not."""
    top.bind(adapters)
    told = [_foretold(top, session, step) for step in session.steps]
    return [None if each is None else each.argmax(1) for each in told]


def directions(session: Session, step: Step) -> Tensor | None:
    """Sum of each text's gradient [B, D], of norm 1; None where it could not be read."""
    if step.g2 is None:
        return None
    rows = _rows(session, step)
    owner = torch.repeat_interleave(torch.arange(len(rows)), torch.as_tensor(rows))
    summed = torch.zeros(len(rows), step.g2.shape[1]).index_add_(0, owner, step.g2)
    return functional.normalize(summed)


def from_known(known: Tensor, labels: Tensor, unknown: Tensor) -> Tensor:
    """Labels of the texts with directions `unknown` [B, D].

    Args:
        known: directions of the texts whose labels are known.
        labels: theirs.
        unknown: those to read.
    """
    return labels[(unknown @ known.T).argmax(1)]


def _matched(top: Top, session: Session, step: Step, labels: int) -> Tensor | None:
    if step.h2 is None or step.g2 is None:
        return None
    rows = _rows(session, step)
    likeness = [
        _cosines(gradient, step.g2, rows) for gradient in _gradients(top, session, step, labels)
    ]
    return torch.stack(likeness).argmax(0)


def _gradients(top: Top, session: Session, step: Step, labels: int) -> Iterator[Tensor]:
    """For each label, the gradient [R, D] of the summed loss if all texts had it."""
    assert step.h2 is not None
    rows = _rows(session, step)
    h2 = step.h2.to(top.checkpoint.dtype, copy=True).requires_grad_()
    logits = _logits(top, h2, rows, whole=session.reach == "all")
    for label in range(labels):
        loss = functional.cross_entropy(logits, torch.full((len(rows),), label), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, h2, retain_graph=True)
        yield gradient.float()


def _foretold(top: Top, session: Session, step: Step) -> Tensor | None:
    """Log probabilities [B, C] of the labels by the top that is bound; None without h2."""
    if step.h2 is None:
        return None
    rows, whole = _rows(session, step), session.reach == "all"
    with torch.no_grad():
        logits = _logits(top, step.h2.to(top.checkpoint.dtype), rows, whole=whole)
    return logits.log_softmax(1)


def _rows(session: Session, step: Step) -> Sequence[int]:
    """Rows of each text at the second cut."""
    return reached_lengths(step.lengths, session.reach, step.chosen)


def _logits(top: Top, h2: Tensor, rows: Sequence[int], *, whole: bool) -> Tensor:
    if not whole:
        alone: Tensor = top(h2[:, None])
        return alone
    width = max(rows)
    index, mask = flat_index(rows, width), mask_of(rows, width)
    logits: Tensor = top(unpack(h2, index, len(rows), width), mask)
    return logits


def _cosines(one: Tensor, other: Tensor, rows: Sequence[int]) -> Tensor:
    sizes = _by_text(one * one, rows) * _by_text(other * other, rows)
    return _by_text(one * other, rows) / sizes.sqrt().clamp(min=1e-30)


def _by_text(values: Tensor, rows: Sequence[int]) -> Tensor:
    """Sums [B] of values [R, D] over the rows of each text."""
    owner = torch.repeat_interleave(torch.arange(len(rows)), torch.as_tensor(rows))
    return torch.zeros(len(rows)).index_add_(0, owner, values.sum(1))

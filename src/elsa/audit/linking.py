"""Which sessions are of one device, if devices went by another name every round?

A session is told by the mean of the states that it sent, in each direction measured by how much
tokens scatter. The attacker holds one earlier session of each device, and gives a later one to the
device whose session is nearest.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from elsa.audit.transcript import Session


def linked(sessions: Sequence[Session]) -> tuple[list[bool], int]:
    """For each later session, whether it was given to its device; and how many devices there are.

    Only devices with a first session that can be read take part.
    """
    first: dict[str, Tensor] = {}
    later: list[tuple[str, Tensor]] = []
    scatter = _scatter(sessions)
    for session in sessions:
        mark = _mark(session, scatter)
        if mark is None:
            continue
        if session.device in first:
            later.append((session.device, mark))
        else:
            first[session.device] = mark
    if len(first) < 2 or not later:
        return [], len(first)
    names, gallery = list(first), torch.stack(list(first.values()))
    return [
        names[int((gallery - mark).square().sum(1).argmin())] == device for device, mark in later
    ], len(first)


def _mark(session: Session, scatter: Tensor) -> Tensor | None:
    states = [step.h1 for step in session.steps if step.h1 is not None]
    return torch.cat(states).mean(0) / scatter if states else None


def _scatter(sessions: Sequence[Session]) -> Tensor:
    """How much the first readable batch's tokens scatter in each direction [D]."""
    for session in sessions:
        for step in session.steps:
            if step.h1 is not None:
                return step.h1.std(0).clamp(min=1e-6)
    return torch.ones(1)

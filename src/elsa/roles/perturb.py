"""A device's secret rotation of what leaves it, and its undoing (SS-OP, `core.ssop`)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from elsa.core.ragged import flat_index, pack
from elsa.core.secret import SecretSeed
from elsa.core.ssop import Fresh, Rotation, Rotations, Subspace
from elsa.data.batches import Examples, make_batch
from elsa.model.segments import Bottom

ROWS = 64
"""Rows of its own that a device finds its semantic subspace from."""


@dataclass(frozen=True)
class Perturbation:
    """How a device perturbs.

    Attributes:
        rank: r, directions rotated.
        angle: largest angle, in half turns.
        fresh: how long a rotation lives.
        about: the point that stays.
        secret: what only this device knows; it is in no message and no file.
    """

    rank: int
    angle: float
    fresh: Fresh
    about: Literal["mean", "origin"]
    secret: SecretSeed


def rotations_of(
    perturbation: Perturbation, bottom: Bottom, examples: Examples, pad_id: int
) -> Rotations:
    """The rotations of a device, inside the subspace of its own hidden states at the first cut.

    The states are those of the base model, whose bottom never changes, so a device that starts
    again finds the same ones. Its bottom must be bound anew afterwards.

    Raises:
        ConfigError: the rank is above D.
    """
    bottom.bind({name: torch.zeros(shape) for name, shape in bottom.adapter_shapes.items()})
    batch = make_batch(examples, range(min(ROWS, len(examples))), pad_id)
    index = flat_index(batch.lengths, batch.input_ids.shape[1])
    with torch.no_grad():
        states = pack(bottom(batch.input_ids, batch.mask, batch.token_types), index)
    subspace = Subspace.fit(
        states.float(), perturbation.rank, perturbation.secret.derive("fit"), perturbation.about
    )
    secret = perturbation.secret.derive("turn")
    return Rotations(subspace, perturbation.angle, perturbation.fresh, secret)


def turned(states: Tensor, rotation: Rotation | None) -> Tensor:
    """What the edge may see of the states; differentiable."""
    return states if rotation is None else rotation.forward(states)


def turned_back(states: Tensor, rotation: Rotation | None) -> Tensor:
    """What the edge sent, for the top; differentiable."""
    return states if rotation is None else rotation.inverse(states)

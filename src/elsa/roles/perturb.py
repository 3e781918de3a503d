"""What a device does to what leaves it, and its undoing.

To hidden states a secret rotation (SS-OP, `core.ssop`), then clipping and noise (`core.noise`); to
gradients at the second cut, and to what it changed of its adapters, clipping and noise. Each may be
off.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from elsa.core.noise import Noise
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
        rank: r, directions rotated; 0 rotates nothing.
        angle: largest angle, in half turns.
        fresh: how long a rotation lives.
        about: the point that stays.
        secret: what only this device knows; it is in no message and no file.
        noise: clipping and noise of hidden states; None adds none.
        gradients: of gradients at the second cut.
        update: of the change that it submits.
    """

    rank: int
    angle: float
    fresh: Fresh
    about: Literal["mean", "origin"]
    secret: SecretSeed
    noise: Noise | None = None
    gradients: Noise | None = None
    update: Noise | None = None

    def submitted(
        self, start: Mapping[str, Tensor], end: Mapping[str, Tensor], secret: SecretSeed
    ) -> Mapping[str, Tensor]:
        """The adapters to submit, from those received and those learned.

        Args:
            start: as received.
            end: as learned, of the same names.
            secret: of this edge round's noise.
        """
        if self.update is None:
            return end
        drawn = {name: secret.derive(name).normal(value.shape) for name, value in end.items()}
        return self.update.whole(start, end, drawn)


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


@dataclass(frozen=True)
class Disguise:
    """What is done to one batch.

    Attributes:
        rotation: turns it; None does not.
        noise: clips it and adds noise; None does not.
        secret: of this batch's noise.
        gradients: clips and adds noise to what is sent down; None does not.
    """

    rotation: Rotation | None = None
    noise: Noise | None = None
    secret: SecretSeed | None = None
    gradients: Noise | None = None

    def show(self, states: Tensor, part: int = 0) -> Tensor:
        """What the edge may see of the states [T, D]; differentiable.

        Each part of a batch, by its number, has noise of its own.
        """
        if self.rotation is not None:
            states = self.rotation.forward(states)
        if self.noise is not None and self.secret is not None:
            drawn = self.secret.derive(part).normal(states.shape).to(states.device, torch.float32)
            states = self.noise.rows(states, drawn)
        return states

    def part(self, number: int) -> "Disguise":
        """What is done to a micro-batch that goes over the link by itself; its noise is its own."""
        if self.secret is None:
            return self
        return replace(self, secret=self.secret.derive("micro-batch", number))

    def read(self, states: Tensor) -> Tensor:
        """What the edge sent [R, D], for the top; differentiable."""
        return states if self.rotation is None else self.rotation.inverse(states)

    def slope(self, gradients: Tensor, sizes: Sequence[int]) -> Tensor:
        """What the edge may see of the gradients [R, D] of texts of so many rows each."""
        if self.gradients is None or self.secret is None:
            return gradients
        drawn = self.secret.derive("gradients").normal(gradients.shape).to(torch.float32)
        return self.gradients.texts(gradients.cpu(), sizes, drawn)

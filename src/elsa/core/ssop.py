"""Semantic subspace orthogonal perturbation, SS-OP (ELSA, arXiv 2601.13824).

A device turns its hidden states, before they leave it, by a secret rotation Q inside the r
directions in which they vary most, and turns back what returns:

    Q = I + V (W - I) V^T,    h1' = (h1 - mu) Q + mu,    h2 = (h2' - mu) Q^T + mu

V [D, r] are the directions, W [r, r] is secret and orthogonal, mu [D] the point that stays. The
edge sees h1' and g2' = dL/dh2' = g2 Q, and answers with h2' and g1'; the gradient for the bottom is
g1 = g1' Q^T. Autograd on the device does all of that by itself:

    h1_sent = rotation.forward(h1)              # send h1_sent.detach()
    h2_got.requires_grad_()                     # as it came from the edge
    loss = top(rotation.inverse(h2_got))        # after its backward, send h2_got.grad
    torch.autograd.backward(h1_sent, g1_got)    # g1_got as it came from the edge

Shapes: T tokens, D hidden size, r rank. No tensor here is D x D.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from elsa.core.secret import Secret, SecretSeed
from elsa.errors import ConfigError, DataError

Fresh = Literal["fixed", "round", "batch"]
"""How long a rotation lives."""

_SPARE = 8
_PASSES = 3


class Subspace(Secret):
    """The directions inside which a device rotates, and the point about which it does."""

    __slots__ = ("_directions", "_origin")

    def __init__(self, directions: Tensor, origin: Tensor) -> None:
        """Take orthonormal `directions` [D, r] and `origin` [D]."""
        self._directions = directions.double()
        self._origin = origin.double()

    @classmethod
    def fit(
        cls, states: Tensor, rank: int, seed: SecretSeed, about: Literal["mean", "origin"] = "mean"
    ) -> "Subspace":
        """The top principal directions of a device's own hidden states at the cut.

        Found by randomised subspace iteration (Halko, Martinsson and Tropp, arXiv 0909.4061), in
        O(T D r). Where the states span fewer than r directions, the rest are random.

        Args:
            states: [T, D].
            rank: r, at least 2: one direction alone cannot turn.
            seed: of the search.
            about: rotate about the mean of the states, in whose frame directions are then taken,
                or about zero.

        Raises:
            ConfigError: the rank is below 2 or above D.
            DataError: there are no states, or some are not finite.
        """
        check_rank(rank, states.shape[1])
        if not len(states) or not bool(torch.isfinite(states).all()):
            raise DataError(
                f"SS-OP needs finite hidden states to fit its subspace; got {len(states)} tokens"
                + (", some NaN or infinite" if len(states) else "")
            )
        states = states.detach().float().cpu()
        hidden = states.shape[1]
        origin = states.mean(0) if about == "mean" else torch.zeros(hidden)
        states = states - origin
        basis = _orthonormal(seed.normal((hidden, min(rank + _SPARE, hidden))))
        for _ in range(_PASSES):
            basis = _orthonormal(states.T @ (states @ basis))
        inside = (states @ basis).double()
        axes = torch.linalg.eigh(inside.T @ inside).eigenvectors.flip(1)[:, :rank]
        return cls(torch.linalg.qr(basis.double() @ axes).Q, origin)


class Rotation(Secret):
    """One secret rotation: linear about the subspace's origin, exact in its gradient."""

    __slots__ = ("_directions", "_forward", "_inverse", "_place")

    def __init__(self, subspace: Subspace, turn: Tensor) -> None:
        """Take W - I as `turn` [r, r]."""
        directions = subspace._directions
        self._directions = directions.float()
        self._forward = (turn @ directions.T).float()
        self._inverse = (turn.T @ directions.T).float()
        self._place = (subspace._origin @ directions).float()

    @classmethod
    def draw(cls, subspace: Subspace, angle: float, seed: SecretSeed) -> "Rotation":
        """Draw W = expm(A), A skew, with r/2 planes in random position.

        Angles are spread evenly over (0, angle * pi], the largest being angle * pi. At 0 that is
        the identity; at 1 the planes are those of a Haar-random rotation and the angles spread as
        its angles nearly are.

        Raises:
            ConfigError: the angle is not in [0, 1].
        """
        check_angle(angle)
        rank = subspace._directions.shape[1]
        planes = rank // 2
        frame, triangle = torch.linalg.qr(seed.derive("planes").normal((rank, 2 * planes)))
        one, other = (frame * triangle.diagonal().sign()).chunk(2, dim=1)
        share = torch.arange(1, planes + 1, dtype=torch.float64)
        share[:-1] -= seed.derive("angles").uniform(planes - 1)
        theta = share / planes * (angle * math.pi)
        # cos - 1 without cancellation, so that small angles stay exact
        less, sine = -2 * (theta / 2).sin().square(), theta.sin()
        turn = (one * less) @ one.T + (other * less) @ other.T
        turn = turn + (one * sine) @ other.T - (other * sine) @ one.T
        return cls(subspace, turn)

    def forward(self, states: Tensor) -> Tensor:
        """h1 [..., D] -> what the edge may see of it, in its dtype; differentiable."""
        return self._apply(states, self._forward)

    def inverse(self, states: Tensor) -> Tensor:
        """h2 as the edge sent it [..., D] -> h2 for the top, in its dtype; differentiable."""
        return self._apply(states, self._inverse)

    def _apply(self, states: Tensor, change: Tensor) -> Tensor:
        dtype = torch.promote_types(states.dtype, torch.float32)
        directions, place, change = (
            tensor.to(states.device, dtype) for tensor in (self._directions, self._place, change)
        )
        wide = states.to(dtype)
        return (wide + (wide @ directions - place) @ change).to(states.dtype)


class Rotations(Secret):
    """The rotations of one device over a run: each follows from its secret seed and the epoch."""

    __slots__ = ("_angle", "_epoch", "_fresh", "_now", "_seed", "_subspace")

    def __init__(self, subspace: Subspace, angle: float, fresh: Fresh, seed: SecretSeed) -> None:
        """Take a rotation `angle`, see `Rotation.draw`, and how long each rotation lives.

        Raises:
            ConfigError: the angle is not in [0, 1].
        """
        check_angle(angle)
        self._subspace = subspace
        self._angle = angle
        self._fresh = fresh
        self._seed = seed
        self._epoch: tuple[int, ...] | None = None
        self._now: Rotation | None = None

    def at(self, round_: int, *batch: int) -> Rotation:
        """The rotation of a batch, named by its round and by any numbers within the round."""
        epochs: dict[Fresh, tuple[int, ...]] = {
            "fixed": (),
            "round": (round_,),
            "batch": (round_, *batch),
        }
        epoch = epochs[self._fresh]
        if self._now is None or epoch != self._epoch:
            seed = self._seed.derive("rotation", *epoch)
            self._now, self._epoch = Rotation.draw(self._subspace, self._angle, seed), epoch
        return self._now


def check_rank(rank: int, hidden: int) -> None:
    """Raises ConfigError unless 2 <= rank <= D = hidden."""
    if not 2 <= rank <= hidden:
        raise ConfigError(
            f"SS-OP rank {rank}: allowed are 2 to {hidden}, the model's hidden size; "
            "one direction alone cannot turn"
        )


def check_angle(angle: float) -> None:
    """Raises ConfigError unless 0 <= angle <= 1."""
    if not 0 <= angle <= 1:
        raise ConfigError(
            f"SS-OP angle {angle}: allowed are 0 (no rotation) to 1 (fully random), "
            "in units of half a turn"
        )


def _orthonormal(sketch: Tensor) -> Tensor:
    basis: Tensor = torch.linalg.qr(sketch.double()).Q.float()
    return basis

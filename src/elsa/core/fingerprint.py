"""Fingerprints: what a model makes of public texts, as a Gaussian that fits into a kilobyte.

ELSA (arXiv 2601.13824) compares devices by behaviour instead of by labels, which tasks need not
share. Q probes, the same for all, give pooled final hidden states [Q, D]; heads never enter. They
are seen on d axes that all share, the principal ones of the *base* model's states, in units of the
base model's own spread along each. A change of units common to all leaves the divergence as it is;
it makes half precision enough, and the shrinking of the covariance pull towards the base model.

Shapes: Q probes, D hidden size, d axes, N fingerprints.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from elsa.errors import BehaviourError, ConfigError

PROBES_PER_AXIS = 3
"""Q must be more than so many times d, or a covariance says nothing."""
FLOOR = 1.0
"""Variance added along every axis, in units of the base model's: its own. So no covariance is
singular, and a small change where the base hardly varies does not drown all others."""
_LARGEST = 6e4
"""Values beyond are cut, to fit into half precision."""


@dataclass(frozen=True, eq=False)
class Basis:
    """The axes that all fingerprints share.

    Attributes:
        mean: [D], the base model's mean state, float64.
        axes: [D, d], columns orthogonal, each as long as one over the base model's standard
            deviation along it, float64.
    """

    mean: Tensor
    axes: Tensor

    @property
    def dimensions(self) -> int:
        """d."""
        return self.axes.shape[1]

    def project(self, states: Tensor) -> Tensor:
        """Pooled states [..., D] -> coordinates [..., d], float64."""
        return (states.double() - self.mean) @ self.axes


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """A Gaussian on the shared axes.

    Attributes:
        mean: [d], float64.
        factor: [d, d], lower Cholesky factor of the covariance, float64.
    """

    mean: Tensor
    factor: Tensor


def shared_basis(states: Tensor, dimensions: int) -> Basis:
    """The basis, from the base model's pooled states [Q, D] of all probes.

    Raises:
        ConfigError: too few probes for so many axes.
        BehaviourError: the states are not finite, or vary along fewer axes.
    """
    probes, hidden = states.shape
    if probes <= PROBES_PER_AXIS * dimensions or dimensions > hidden:
        most = min(hidden, (probes - 1) // PROBES_PER_AXIS)
        raise ConfigError(
            f"{probes} probes for fingerprints on {dimensions} axes; allowed: at most {most} axes "
            f"for so many probes and hidden size {hidden}; give more probes or fewer axes"
        )
    _check_finite(states)
    mean = states.double().mean(0)
    _, sizes, axes = torch.linalg.svd(states.double() - mean, full_matrices=False)
    deviations = sizes[:dimensions] / (probes - 1) ** 0.5
    if float(deviations[-1]) <= 1e-6 * float(sizes[0]):
        raise BehaviourError(
            f"the base model's states of {probes} probes vary along fewer than {dimensions} axes: "
            "give more different probes, or fewer axes"
        )
    return Basis(mean, axes[:dimensions].T / deviations)


def fingerprint(coordinates: Tensor) -> Fingerprint:
    """The fingerprint of probes seen on the shared axes [Q, d].

    The covariance is shrunk (Ledoit and Wolf 2004, doi 10.1016/S0047-259X(03)00096-4) and then
    grows by `FLOOR` along every axis, so it is never singular.

    Raises:
        ConfigError: too few probes.
        BehaviourError: a value is not finite.
    """
    from sklearn.covariance import ledoit_wolf  # late: a device never needs it

    probes, dimensions = coordinates.shape
    if probes <= PROBES_PER_AXIS * dimensions:
        raise ConfigError(
            f"a fingerprint on {dimensions} axes needs more than {PROBES_PER_AXIS * dimensions} "
            f"probes, not {probes}"
        )
    _check_finite(coordinates)
    values = coordinates.double().clamp(-_LARGEST, _LARGEST)
    shrunk, _ = ledoit_wolf(values.numpy())
    covariance = torch.from_numpy(shrunk) + FLOOR * torch.eye(dimensions, dtype=torch.float64)
    return Fingerprint(values.mean(0), torch.linalg.cholesky(covariance))


def packed(print_: Fingerprint) -> bytes:
    """The d + d (d + 1) / 2 numbers of a fingerprint in half precision, little endian.

    The covariance travels as its Cholesky factor, so that rounding cannot make it indefinite.
    """
    lower = torch.tril_indices(*print_.factor.shape)
    numbers = torch.cat([print_.mean, print_.factor[lower[0], lower[1]]])
    half: bytes = numbers.clamp(-_LARGEST, _LARGEST).numpy().astype("<f2").tobytes()
    return half


def unpacked(data: bytes, dimensions: int) -> Fingerprint:
    """The fingerprint that `packed` made.

    Raises:
        BehaviourError: it is of another length, not finite, or no covariance.
    """
    size = dimensions + dimensions * (dimensions + 1) // 2
    if len(data) != 2 * size:
        raise BehaviourError(
            f"fingerprint of {len(data)} bytes; {2 * size} are due for {dimensions} axes"
        )
    numbers = torch.from_numpy(np.frombuffer(data, "<f2").astype(np.float64))
    _check_finite(numbers)
    factor = torch.zeros(dimensions, dimensions, dtype=torch.float64)
    lower = torch.tril_indices(dimensions, dimensions)
    factor[lower[0], lower[1]] = numbers[dimensions:]
    if not bool((factor.diagonal() > 0).all()):
        raise BehaviourError("fingerprint whose covariance has no spread along an axis")
    return Fingerprint(numbers[:dimensions], factor)


def divergences(prints: Sequence[Fingerprint]) -> Tensor:
    """Symmetric Kullback-Leibler divergence of every pair, float64 [N, N], zero on the diagonal.

    R(n, m) = (KL(n||m) + KL(m||n)) / 2. The determinants cancel, and with S = L L^T,
    tr(S_m^-1 S_n) = |L_m^-1 L_n|^2, so triangular systems are all there is to solve:

        4 R = |L_m^-1 L_n|^2 + |L_n^-1 L_m|^2 - 2 d + |L_m^-1 v|^2 + |L_n^-1 v|^2,  v = mu_n - mu_m
    """
    count = len(prints)
    if not count:
        return torch.zeros(0, 0, dtype=torch.float64)
    means = torch.stack([it.mean for it in prints])
    factors = torch.stack([it.factor for it in prints])
    dimensions = means.shape[1]
    columns = torch.cat([factors, means[:, :, None]], 2)  # [N, d, d + 1]
    side_by_side = columns.permute(1, 0, 2).reshape(dimensions, -1).contiguous()
    one_way = torch.empty(count, count, dtype=torch.float64)
    for number, factor in enumerate(factors):
        solved = torch.linalg.solve_triangular(factor, side_by_side, upper=False)
        parts = solved.view(dimensions, count, dimensions + 1)
        moved = parts[:, :, -1] - parts[:, number : number + 1, -1]
        one_way[number] = parts[:, :, :-1].square().sum((0, 2)) + moved.square().sum(0)
    both = (one_way + one_way.T) / 4 - dimensions / 2
    return both.clamp(min=0).fill_diagonal_(0)


def turns(prints: Sequence[Fingerprint]) -> Tensor:
    """How differently devices moved away from the base model, float64 [N, N], 0 to 2.

    1 minus the cosine of the angle at the base model b, by the law of cosines, in triangles whose
    sides are the square roots of divergences:

        1 - (R(n, b) + R(m, b) - R(n, m)) / (2 sqrt(R(n, b) R(m, b)))

    How far a device moved does not count: of two that learn the same, the one that has learned less
    is not another kind, but its divergence from the other is large. Who is where the base model is
    has no direction, and is at a right angle to all who moved.
    """
    if not prints:
        return torch.zeros(0, 0, dtype=torch.float64)
    dimensions = len(prints[0].mean)
    own = (1 + FLOOR) ** 0.5 * torch.eye(dimensions, dtype=torch.float64)
    base = Fingerprint(torch.zeros(dimensions, dtype=torch.float64), own)
    apart = divergences([*prints, base])
    away, between = apart[:-1, -1], apart[:-1, :-1]
    both = (away[:, None] * away).sqrt()
    cosine = (away[:, None] + away - between) / (2 * both).clamp(min=torch.finfo(both.dtype).tiny)
    turn = torch.where(both > 0, 1 - cosine, (between > 0).double()).clamp(0, 2)
    return turn.fill_diagonal_(0)


def _check_finite(values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise BehaviourError("its answers to the probes hold NaN or infinity; its model diverged")

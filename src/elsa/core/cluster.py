"""Clusters of devices that behave alike.

Spectral clustering (Ng, Jordan and Weiss 2001) on exp(-A(n, m) / sqrt(s_n s_m)), A how far apart
two devices are. ELSA (arXiv 2601.13824) takes the divergence of their fingerprints for A, and one
scale, its median. Here A is a turn (`core.fingerprint.turns`), and s_n is how far the others
are from n: a scale for each device (Zelnik-Manor and Perona 2004), or a few that are far from
everybody would be the clusters. The number of clusters is given, or the eigengap says it: the
k after which the eigenvalues of the normalised Laplacian jump most (von Luxburg 2007, arXiv
0711.0189), from 2 up: all devices are joined, however weakly, so the jump after the first
eigenvalue says nothing.

Shapes: N devices, k clusters.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MOST = 10
"""Most clusters that an eigengap is looked for among."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Who is with whom.

    Attributes:
        labels: [N] int64, from 0; the clusters are numbered by their first member.
        count: k.
    """

    labels: Tensor
    count: int

    def members(self, cluster: int) -> Tensor:
        """Numbers of the devices of a cluster, int64."""
        return (self.labels == cluster).nonzero()[:, 0]


def affinity(apart: Tensor) -> Tensor:
    """exp(-A(n, m) / sqrt(s_n s_m)) [N, N], s_n the mean of fourth roots of A(n, m), to the fourth.

    Fourth roots, so that neither the near nor the far ones alone make the scale, as a geometric
    mean would have it; and none that is wholly alike makes it 0. Where it is 0, a device is wholly
    like all others: 1 for those that are alike, else 0.
    """
    count = len(apart)
    if count < 2:
        return torch.ones_like(apart)
    scale = (apart.sqrt().sqrt().sum(1) / (count - 1)).square()
    scales = scale[:, None] * scale
    near = torch.exp(-apart / scales.clamp(min=torch.finfo(torch.float64).tiny))
    return torch.where(scales > 0, near, (apart <= 0).to(torch.float64))


def cluster(apart: Tensor, count: int, seed: int) -> Clusters:
    """Group devices by how far apart they are [N, N].

    With more clusters than devices, each device is one. Where all devices are alike nothing tells
    them apart: a given number of clusters is then dealt in turn, and the eigengap finds one.

    Args:
        apart: symmetric, finite, 0 or more, with a zero diagonal.
        count: k; 0 lets the eigengap say, up to `MOST`.
        seed: of the k-means step.
    """
    devices = len(apart)
    differ = bool(apart.any())
    values, vectors = _spectrum(affinity(apart)) if differ and devices > 1 else (None, None)
    if not count:
        count = 1 if values is None or devices < 3 else _eigengap(values)
    count = min(count, devices)
    if count <= 1:
        return Clusters(torch.zeros(devices, dtype=torch.int64), min(devices, 1))
    if count == devices or vectors is None:
        return _numbered(torch.arange(devices) % count)
    from sklearn.cluster import KMeans  # late: a device never needs it

    rows = torch.nn.functional.normalize(vectors[:, :count], dim=1).numpy()
    means = KMeans(count, n_init=10, random_state=seed).fit(rows)
    return _numbered(torch.from_numpy(means.labels_.astype(np.int64)))


def embedding(apart: Tensor) -> Tensor:
    """Points in the plane [N, 2] whose distances are like the square roots of `apart` [N, N].

    Classical scaling (Torgerson 1952), for drawings; nothing is decided by it. What no plane can
    hold is left out, and one axis is zero where a line holds all.
    """
    count = len(apart)
    centre = torch.eye(count, dtype=torch.float64) - 1 / max(count, 1)
    values, vectors = torch.linalg.eigh(-centre @ apart @ centre / 2)
    found = torch.zeros(count, 2, dtype=torch.float64)
    for axis in range(min(count, 2)):
        vector = vectors[:, -1 - axis]
        turn = vector[vector.abs().argmax()].sign()
        found[:, axis] = turn * vector * values[-1 - axis].clamp(min=0).sqrt()
    return found


def _spectrum(alike: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, rising, and eigenvectors of I - D^-1/2 W D^-1/2, W the affinities, D their sums.

    All of them, exactly: where the graph falls into parts, an iterative solver mixes them up.
    """
    sums = alike.sum(1).sqrt()
    whole = torch.eye(len(alike), dtype=torch.float64) - alike / (sums[:, None] * sums)
    values, vectors = torch.linalg.eigh(whole)
    return values, vectors


def _eigengap(values: Tensor) -> int:
    return int(values[1 : MOST + 1].diff().argmax()) + 2


def _numbered(labels: Tensor) -> Clusters:
    order = {old: new for new, old in enumerate(dict.fromkeys(labels.tolist()))}
    return Clusters(torch.tensor([order[old] for old in labels.tolist()]), len(order))

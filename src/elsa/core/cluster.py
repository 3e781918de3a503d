"""Clusters of devices that behave alike.

Spectral clustering on exp(-R(n, m) / sqrt(s_n s_m)), R the divergences of the devices' fingerprints
(ELSA, arXiv 2601.13824), s_n the median of those of device n. A scale for each device (Zelnik-Manor
and Perona 2004) instead of one for all: a few devices far from everybody would else be the
clusters. The number of clusters is given, or the eigengap says it: the k after which the
eigenvalues of the normalised Laplacian jump most (von Luxburg 2007, arXiv 0711.0189), from 2 up:
all devices are joined, however weakly, so the jump after the first eigenvalue says nothing.

Shapes: N devices, k clusters.
"""

import warnings
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


def affinity(divergences: Tensor) -> Tensor:
    """exp(-R(n, m) / sqrt(s_n s_m)) [N, N], s_n the median of R(n, m) over all others m.

    Where a median is 0, as most devices are wholly alike: 1 for those that are, else 0.
    """
    count = len(divergences)
    if count < 2:
        return torch.ones_like(divergences)
    others = divergences[~torch.eye(count, dtype=torch.bool)].view(count, count - 1)
    scale = others.median(1).values.sqrt()
    scales = scale[:, None] * scale
    near = torch.exp(-divergences / scales.clamp(min=torch.finfo(torch.float64).tiny))
    return torch.where(scales > 0, near, (divergences <= 0).to(torch.float64))


def cluster(divergences: Tensor, count: int, seed: int) -> Clusters:
    """Group devices by their divergences [N, N].

    With more clusters than devices, each device is one. Where all devices are alike nothing tells
    them apart: a given number of clusters is then dealt in turn, and the eigengap finds one.

    Args:
        divergences: symmetric, finite, 0 or more, with a zero diagonal.
        count: k; 0 lets the eigengap say, up to `MOST`.
        seed: of the k-means step.
    """
    devices = len(divergences)
    alike = affinity(divergences)
    apart = bool(divergences.any())
    count = min(count or (_eigengap(alike) if apart else 1), devices)
    if count <= 1:
        return Clusters(torch.zeros(devices, dtype=torch.int64), min(devices, 1))
    if count == devices or not apart:
        labels = np.arange(devices) % count
    else:
        with warnings.catch_warnings():  # several parts are no fault; a part is a cluster then
            warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
            from sklearn.cluster import spectral_clustering  # late: a device never needs it

            labels = spectral_clustering(alike.numpy(), n_clusters=count, random_state=seed)
    return _numbered(torch.from_numpy(labels.astype(np.int64)))


def embedding(divergences: Tensor) -> Tensor:
    """Points in the plane [N, 2] whose distances are like the square roots of the divergences.

    Classical scaling (Torgerson 1952), for drawings; nothing is decided by it. What no plane can
    hold is left out, and one axis is zero where a line holds all.
    """
    count = len(divergences)
    centre = torch.eye(count, dtype=torch.float64) - 1 / max(count, 1)
    values, vectors = torch.linalg.eigh(-centre @ divergences @ centre / 2)
    found = torch.zeros(count, 2, dtype=torch.float64)
    for axis in range(min(count, 2)):
        vector = vectors[:, -1 - axis]
        turn = vector[vector.abs().argmax()].sign()
        found[:, axis] = turn * vector * values[-1 - axis].clamp(min=0).sqrt()
    return found


def _eigengap(alike: Tensor) -> int:
    if len(alike) < 3:
        return 1
    from scipy.sparse.csgraph import laplacian  # late, as above

    values = torch.linalg.eigvalsh(torch.from_numpy(laplacian(alike.numpy(), normed=True)))
    return int(values[1 : MOST + 1].diff().argmax()) + 2


def _numbered(labels: Tensor) -> Clusters:
    order = {old: new for new, old in enumerate(dict.fromkeys(labels.tolist()))}
    return Clusters(torch.tensor([order[old] for old in labels.tolist()]), len(order))

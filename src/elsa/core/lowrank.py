"""LoRA adapters as products of two factors, and between ranks.

A site is an adapted layer: factors A [r, in] and B [out, r], named alike but for "lora_A" and
"lora_B"; the layer gains s B A. Everybody uses one scale s = alpha / R, where R is the largest
rank of the federation and that of the exported adapter, whatever its own rank r. So factors of
rank r are those of rank R with zeros in the rows of A and columns of B that are not there.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad as _pad

_A, _B = ".lora_A.", ".lora_B."


class Factors(NamedTuple):
    """Two factors of a site, float64, and what was lost by their rank.

    Attributes:
        a: A [r, in].
        b: B [out, r].
        lost: share of the product's squared Frobenius norm that rank r cannot hold, 0 to 1.
    """

    a: Tensor
    b: Tensor
    lost: float


def sites(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The names of A and B of each site whose two factors are among `names`."""
    known = dict.fromkeys(names)
    for name in known:
        partner = name.replace(_A, _B)
        if _A in name and partner in known:
            yield name, partner


def rank_of(adapters: Mapping[str, Tensor]) -> int:
    """The largest rank among the sites; 0 where there is none."""
    return max((adapters[a].shape[0] for a, _ in sites(adapters)), default=0)


def cut(adapters: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """The adapters with the first `rank` rows of each A and columns of each B.

    After `by_singular_value` that is the best approximation of rank `rank` (Eckart and Young).
    Heads, and factors of no larger rank, are the tensors given.
    """
    changed = dict(adapters)
    for a, b in sites(adapters):
        if adapters[a].shape[0] > rank:
            changed[a] = adapters[a][:rank].contiguous()
            changed[b] = adapters[b][:, :rank].contiguous()
    return changed


def padded(adapters: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """The adapters with zeros up to `rank`: each site's product is as before.

    Heads, and factors that have the rank, are the tensors given.
    """
    changed = dict(adapters)
    for a, b in sites(adapters):
        lacking = rank - adapters[a].shape[0]
        if lacking > 0:
            changed[a] = _pad(adapters[a], (0, 0, 0, lacking))
            changed[b] = _pad(adapters[b], (0, lacking))
    return changed


def by_singular_value(adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same products in factors whose directions come by falling singular value.

    Rows of each A are orthogonal and of equal length, the norm of A stays, and each row points to
    the side that it did.
    """
    changed = dict(adapters)
    for a, b in sites(adapters):
        old_a, old_b = adapters[a].double(), adapters[b].double()
        u, s, vt = _decomposed(old_a, old_b, len(old_a))
        side = torch.where((vt * old_a).sum(1) < 0, -1.0, 1.0).double()
        length = math.sqrt(float(old_a.square().sum()) / len(old_a)) or 1.0
        changed[a] = (length * side[:, None] * vt).to(adapters[a].dtype)
        changed[b] = (u * (s[: len(vt)] * side / length)).to(adapters[b].dtype)
    return changed


def factorised(a: Tensor, b: Tensor, like: Tensor, length: float) -> Factors:
    """The best factors of rank `rank` for the product b a, without ever building it.

    QR of both factors, then the SVD of the small core between them:
    b a = Q_b (R_b R_a^T) Q_a^T. Of all pairs with the same product the one is taken whose A has
    orthogonal rows, all of one length, and lies closest to `like` (orthogonal Procrustes,
    Schoenemann 1966). So B may be zero in a direction, as where LoRA starts, but A is not: every
    direction goes on learning.

    Args:
        a: [m, in], m >= r.
        b: [out, m].
        like: [r, in], where A shall lie; r is the rank of the factors wanted.
        length: of each row of A, above 0.
    """
    rank = len(like)
    u, s, vt = _decomposed(a.double(), b.double(), rank)
    whole = float(s.square().sum())
    lost = float(s[rank:].square().sum()) / whole if whole else 0.0
    left, _, right = torch.linalg.svd(like.double() @ vt.T)
    turn = left @ right
    return Factors(length * (turn @ vt), (u * s[:rank]) @ turn.T / length, lost)


def _decomposed(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The SVD of b a: U [out, r], all singular values and at least r, V^T [r, in].

    V^T has orthonormal rows also where singular values are zero, and zero rows only if r > in.
    """
    q_a, r_a = torch.linalg.qr(a.T)
    q_b, r_b = torch.linalg.qr(b)
    u, s, vt = torch.linalg.svd(r_b @ r_a.T)
    u, vt = (q_b @ u)[:, :rank], (vt @ q_a.T)[:rank]
    lacking = max(rank - len(s), 0)
    u = _pad(u, (0, rank - u.shape[1]))
    return u, _pad(s, (0, lacking)), _pad(vt, (0, 0, 0, rank - len(vt)))

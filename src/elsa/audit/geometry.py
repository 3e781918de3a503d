"""Reading rotated states by their shape alone: norms, inner products, where texts begin and end.

A rotation about a point keeps all inner products of differences between states, so whatever they
tell is told as before. Nothing of the secret and no text of the device is needed: the attacker
turns what it saw onto public states. It begins with two guesses of the rotation: that there is
hardly any; and one from the tokens that every text begins and ends with, whose public states are
known for each place. From each it goes on as if it were right: names the nearest public states,
fits the rotation to these pairs (orthogonal Procrustes, Schonemann 1966; in a growing number of
directions, as Grave, Joulin and Berthet 2019, arXiv 1805.11222, refine theirs), and names again.
It keeps what ends nearest to public states.

Shapes: T tokens, N public tokens, D hidden size, k directions.
"""

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

from elsa.audit.knowledge import Texts
from elsa.audit.tokens import CHUNK, Dictionary

TURNS = 12
"""How often it names and fits."""


def by_geometry(dictionary: Dictionary, natural: Texts, seen: Texts, ends: Tensor) -> Tensor:
    """The ids [T] that the states seem to be of, all of them turned by one rotation.

    Args:
        dictionary: public states to name tokens by.
        natural: public states of texts such as people write, to find the rotation by.
        seen: texts as the edge saw them; their tokens are not looked at.
        ends: ids that all texts begin or end with; without any there are no anchors.
    """
    mine = seen.states - seen.states.mean(0)
    entries = natural.states - natural.states.mean(0)
    turns = [
        _refined(mine, entries, left, right)
        for left, right in _starts(natural, entries, seen, mine, ends)
    ]
    back, _ = max(turns, key=lambda pair: pair[1])
    return dictionary.reader()(mine @ back + natural.states.mean(0))


def _refined(mine: Tensor, entries: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, float]:
    """The map back [D, D], and how near public states it leads in the mean (cosine)."""
    hidden, width = mine.shape[1], left.shape[1]
    growth = max(1.0, (hidden / width) ** (1 / (TURNS - 2)))
    before = torch.empty(0, dtype=torch.int64)
    for turn in range(1, TURNS + 1):
        places, near = _nearest(mine @ left, entries @ right)
        if left.shape[1] == hidden and torch.equal(places, before):
            break
        before = places
        sure = near >= near.quantile(0.5)
        outer, _, inner = torch.linalg.svd(mine[sure].T @ entries[places[sure]])
        kept = min(hidden, round(width * growth**turn))
        left, right = outer[:, :kept], inner[:kept].T
    back = left @ right.T
    return back, float(_nearest(mine @ back, entries)[1].mean())


def _starts(
    public: Texts, entries: Tensor, seen: Texts, mine: Tensor, ends: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """First guesses: matching directions of what was seen [D, k] and of public states [D, k]."""
    whole = torch.eye(mine.shape[1])
    yield whole, whole
    if len(ends):
        here, there = _anchors(seen, mine), _anchors(public, entries)
        both = sorted(here.keys() & there.keys())
        one, two = (torch.stack([it[key] for key in both]) for it in (here, there))
        outer, values, inner = torch.linalg.svd(one.T @ two, full_matrices=False)
        kept = int((values > 1e-4 * values[0]).sum())
        yield outer[:, :kept], inner[:kept].T


def _anchors(texts: Texts, states: Tensor) -> dict[int, Tensor]:
    """Mean state of first tokens, under -1, and of last tokens, under their place."""
    stops = list(accumulate(texts.lengths))
    firsts = torch.tensor([0, *stops[:-1]])
    found = {-1: states[firsts].mean(0)}
    for length in set(texts.lengths):
        last = [stop - 1 for stop, size in zip(stops, texts.lengths, strict=True) if size == length]
        found[length - 1] = states[torch.tensor(last)].mean(0)
    return found


def _nearest(mine: Tensor, entries: Tensor) -> tuple[Tensor, Tensor]:
    """Places [T] of the entries with the largest cosines, and these."""
    one, other = functional.normalize(mine), functional.normalize(entries)
    found = [(part @ other.T).max(1) for part in one.chunk(-(-len(one) // CHUNK))]
    return torch.cat([it.indices for it in found]), torch.cat([it.values for it in found])

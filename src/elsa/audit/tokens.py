"""Reading tokens from hidden states by comparing them with those of public text.

"matching" takes the nearest entry of a dictionary of public states, cosine about their mean. Its
adaptive form knows the defence and chooses, on public text that it defended itself, how to
compare: outside the directions in which a rotation turns, or, against noise, by the posterior of
a token given the noisy state, the dictionary's entries being the classes' samples (Parzen 1962).
"known texts" holds some texts of the device together with the states sent for them, fits a map
back to the undefended states (orthogonal Procrustes, Schonemann 1966, or ridge regression,
whichever does better on known texts left out), and matches what it maps.

Shapes: N entries of the dictionary, T tokens, D hidden size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from elsa.audit.defence import Defence
from elsa.audit.knowledge import Texts
from elsa.core.noise import Noise

Read = Callable[[Tensor], Tensor]
"""States [T, D] to the ids [T] that they seem to be of."""

CHUNK = 512
WIDTHS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Widths of the kernel, parts of the public states' mean distance from their mean; 0 is nearest."""


@dataclass(frozen=True, eq=False)
class Dictionary:
    """Public states with their tokens.

    Attributes:
        texts: the states and tokens.
        mean: of the states [D].
        axes: their principal directions [D, D], by falling variance.
        spread: mean distance of a state from the mean.
    """

    texts: Texts
    mean: Tensor
    axes: Tensor
    spread: float

    @classmethod
    def of(cls, texts: Texts) -> "Dictionary":
        """The dictionary of these texts."""
        mean = texts.states.mean(0)
        away = texts.states - mean
        axes = torch.linalg.eigh(away.double().T @ away.double()).eigenvectors.flip(1).float()
        return cls(texts, mean, axes, float(away.norm(dim=1).mean()))

    def clipped(self, noise: Noise) -> "Dictionary":
        """The same with states clipped as a device clips its own."""
        texts = self.texts
        return Dictionary.of(Texts(noise.clipped(texts.states), texts.lengths, texts.tokens))

    def reader(self, *, outside: int = 0, width: float = 0.0) -> Read:
        """A way to read states.

        Args:
            outside: leading directions not to look at.
            width: of the kernel, in `spread`; 0 takes the nearest entry by cosine.
        """
        kept = self.axes[:, outside:]
        entries = (self.texts.states - self.mean) @ kept
        if not width:
            return _chunked(
                _nearest(functional.normalize(entries), self.texts.tokens, self.mean, kept)
            )
        return _chunked(
            _posterior(entries, self.texts.tokens, self.mean, kept, width * self.spread)
        )


def adaptive(dictionary: Dictionary, heard: Texts, defence: Defence, seed: int) -> Read:
    """The reader that does best on public texts `heard`, outside the dictionary, when defended."""
    seen = defence.imitate(heard.states, heard.lengths, seed)
    rank = 0 if defence.turn is None else defence.turn.rank
    most = dictionary.axes.shape[1] - 1
    outsides = {0, *(min(it, most) for it in (rank, rank + 16, 2 * rank) if rank)}
    widths = WIDTHS if defence.noise is not None else (0.0, 0.1)
    readers = [
        dictionary.reader(outside=outside, width=width)
        for outside, width in product(sorted(outsides), widths)
    ]
    return max(readers, key=lambda read: _right(read, seen, heard.tokens))


def known(dictionary: Dictionary, truth: Texts, seen: Texts) -> Read:
    """The reader that undoes what was done to known texts.

    Args:
        dictionary: public states.
        truth: undefended states of the known texts.
        seen: the states that were sent for them, in the same order.
    """
    held = set(range(0, len(truth.lengths), 4))
    fit = [it for it in range(len(truth.lengths)) if it not in held] or sorted(held)
    plain = dictionary.reader()
    maps: list[Callable[[Tensor, Tensor], Read]] = [_turned_back, _regressed]

    def read(make: Callable[[Tensor, Tensor], Read], texts: Sequence[int]) -> Read:
        undo = make(seen.take(texts).states, truth.take(texts).states)
        return lambda states: plain(undo(states))

    left = sorted(held)
    tokens, heard = truth.take(left).tokens, seen.take(left).states
    best = max(maps, key=lambda make: _right(read(make, fit), heard, tokens))
    return read(best, range(len(truth.lengths)))


def _turned_back(seen: Tensor, truth: Tensor) -> Read:
    there, here = seen.mean(0), truth.mean(0)
    left, _, right = torch.linalg.svd((seen - there).T @ (truth - here))
    back = left @ right
    return lambda states: (states - there) @ back + here


def _regressed(seen: Tensor, truth: Tensor) -> Read:
    there, here = seen.mean(0), truth.mean(0)
    away = (seen - there).double()
    gram = away.T @ away
    ridge = 1e-2 * gram.trace() / len(gram) * torch.eye(len(gram), dtype=torch.float64)
    back = torch.linalg.solve(gram + ridge, away.T @ (truth - here).double()).float()
    return lambda states: (states - there) @ back + here


def _right(read: Read, states: Tensor, tokens: Tensor) -> float:
    return float((read(states) == tokens).float().mean())


def _chunked(read: Read) -> Read:
    return lambda states: torch.cat(
        [read(part) for part in states.split_with_sizes(_sizes(len(states)))]
    )


def _sizes(count: int) -> list[int]:
    return [min(CHUNK, count - start) for start in range(0, count, CHUNK)]


def _nearest(entries: Tensor, tokens: Tensor, mean: Tensor, kept: Tensor) -> Read:
    return lambda states: tokens[((states - mean) @ kept @ entries.T).argmax(1)]


def _posterior(entries: Tensor, tokens: Tensor, mean: Tensor, kept: Tensor, width: float) -> Read:
    found, inverse = np.unique(tokens.numpy(), return_inverse=True)
    names, places = torch.from_numpy(found), torch.from_numpy(inverse)
    energy = entries.square().sum(1) / 2

    def read(states: Tensor) -> Tensor:
        logs = ((states - mean) @ kept @ entries.T - energy) / width**2
        weights = (logs - logs.max(1, keepdim=True).values).exp()
        total = torch.zeros(len(states), len(names)).index_add_(1, places, weights)
        best: Tensor = names[total.argmax(1)]
        return best

    return read

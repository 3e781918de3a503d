"""Reading noisy states with a language: how common words are, and which follows which.

Where a state says little, the words around it say more. For each token the attacker has how likely
its state is under each word (kernel density of the word's public states, Parzen 1962), and how
likely a word is after another, counted in public text; the most probable word given the whole text
follows by forward-backward (Rabiner 1989, section III) over the likeliest words of each place.

Shapes: N entries of the dictionary, T tokens, W words of the dictionary, K candidates of a place.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elsa.audit.defence import Defence
from elsa.audit.knowledge import Texts
from elsa.audit.tokens import CHUNK, Dictionary

CANDIDATES = 48
WIDTHS = (0.02, 0.05, 0.2, 0.35, 0.6)
"""Widths of the kernel, parts of the public states' mean distance from their mean."""
BACKING = 5.0
"""Times that a word must have been seen for what followed it to count as much as mere frequency."""


@dataclass(frozen=True, eq=False)
class Language:
    """Counts of words, and of words after words, in some texts.

    Attributes:
        single: probability of each id [V], none of them 0.
        counts: how often each id was followed by another [V].
        pairs: numbers a V + b of the pairs "b after a" that were seen, ascending.
        times: how often each.
    """

    single: Tensor
    counts: Tensor
    pairs: NDArray[np.int64]
    times: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Texts, vocabulary: int) -> "Language":
        """Counted in texts whose tokens are known."""
        counts = torch.bincount(texts.tokens, minlength=vocabulary).double() + 0.1
        pieces = [it.numpy() for it in texts.tokens.split_with_sizes(list(texts.lengths))]
        firsts = np.concatenate([it[:-1] for it in pieces])
        seconds = np.concatenate([it[1:] for it in pieces])
        pairs, times = np.unique(firsts * vocabulary + seconds, return_counts=True)
        followed = torch.bincount(torch.from_numpy(firsts), minlength=vocabulary).double()
        return cls(counts / counts.sum(), followed, pairs, times)

    def after(self, first: Tensor, second: Tensor) -> Tensor:
        """Probability [A, B] of each id in `second` [B] after each in `first` [A]."""
        wanted = (first[:, None] * len(self.single) + second[None, :]).numpy()
        places = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
        times = np.where(self.pairs[places] == wanted, self.times[places], 0)
        followed = self.counts[first][:, None]
        seen = torch.from_numpy(times) / followed.clamp(min=1)
        weight = followed / (followed + BACKING)
        return weight * seen + (1 - weight) * self.single[second][None, :]

    def read(self, likely: Tensor, words: Tensor, lengths: Sequence[int]) -> Tensor:
        """The most probable ids [T], given log likelihoods [T, W] of the ids `words` [W]."""
        prior = self.single[words].log()
        return torch.cat(
            [self._one(text + prior, words) for text in likely.split_with_sizes(list(lengths))]
        )

    def _one(self, joint: Tensor, words: Tensor) -> Tensor:
        best = joint.topk(min(CANDIDATES, len(words)), 1)
        ids = words[best.indices]
        # Every word's own frequency is in `joint`; a pair counts by what it adds to that.
        steps = [self.after(one, two) / self.single[two][None, :] for one, two in pairwise(ids)]
        local = (best.values - best.values[:, :1]).exp()
        ahead = [local[0]]
        for step, here in zip(steps, local[1:], strict=True):
            ahead.append(_normed((ahead[-1] @ step) * here))
        behind = [torch.ones_like(local[0])]
        for step, here in zip(reversed(steps), reversed(local[1:]), strict=True):
            behind.append(_normed(step @ (here * behind[-1])))
        total = torch.stack(ahead) * torch.stack(behind[::-1])
        return ids.gather(1, total.argmax(1, keepdim=True))[:, 0]


def with_language(
    dictionary: Dictionary, language: Language, heard: Texts, defence: Defence, seed: int
) -> Callable[[Texts], Tensor]:
    """The reader that does best on public texts `heard`, outside the dictionary, when defended."""
    seen = Texts(defence.imitate(heard.states, heard.lengths, seed), heard.lengths, heard.tokens)
    rank = 0 if defence.turn is None else defence.turn.rank
    outsides = sorted({0, min(rank, dictionary.axes.shape[1] - 1)})
    best, most = (0, WIDTHS[0]), -1
    for outside in outsides:
        for width, likely, words in _likelihoods(dictionary, seen.states, outside, WIDTHS):
            right = int((language.read(likely, words, seen.lengths) == seen.tokens).sum())
            if right > most:
                best, most = (outside, width), right

    def read(texts: Texts) -> Tensor:
        outside, width = best
        ((_, likely, words),) = _likelihoods(dictionary, texts.states, outside, (width,))
        return language.read(likely, words, texts.lengths)

    return read


def _likelihoods(
    dictionary: Dictionary, states: Tensor, outside: int, widths: Sequence[float]
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """For each width, log likelihoods [T, W] of each word, up to what is alike for all words."""
    kept = dictionary.axes[:, outside:]
    entries = (dictionary.texts.states - dictionary.mean) @ kept
    found, inverse, times = np.unique(
        dictionary.texts.tokens.numpy(), return_inverse=True, return_counts=True
    )
    places, often = torch.from_numpy(inverse), torch.from_numpy(times).float().log()
    energy = entries.square().sum(1) / 2
    parts: dict[float, list[Tensor]] = {width: [] for width in widths}
    for part in (states - dictionary.mean).chunk(-(-len(states) // CHUNK)):
        near = part @ kept @ entries.T - energy
        near -= near.max(1, keepdim=True).values
        for width in widths:
            weights = (near / (width * dictionary.spread) ** 2).exp()
            total = torch.zeros(len(part), len(found)).index_add_(1, places, weights)
            parts[width].append(total.clamp(min=1e-30).log() - often)
    for width in widths:
        yield width, torch.cat(parts[width]), torch.from_numpy(found)


def _normed(values: Tensor) -> Tensor:
    return values / values.sum().clamp(min=1e-300)

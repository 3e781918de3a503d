"""A learned inverter: a small transformer that reads the tokens of a text off its hidden states.

It learns on public text run through the public bottom. Blind, it learns on undefended states;
adaptive, on states that are defended anew in every batch with other secrets, so that it must find
what no secret hides. Attention lets it use a token's neighbours where the token's own state says
too little. The output compares with the public token embeddings; in training among a sample of
them (Jean et al. 2015, arXiv 1412.2007), as the vocabulary is large.

Shapes: B texts, S tokens, T tokens without padding, D hidden size, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from elsa.audit.defence import Defence
from elsa.audit.knowledge import Texts
from elsa.core.ragged import flat_index, mask_of, pack, unpack


@dataclass(frozen=True)
class Training:
    """How long and how wide it learns.

    Attributes:
        steps: batches.
        batch: texts of a batch.
        width: of the transformer.
        layers: of the transformer.
        rate: learning rate of AdamW at its peak.
        rivals: tokens of the vocabulary that the right one is told from, besides the batch's own.
    """

    steps: int = 200
    batch: int = 48
    width: int = 192
    layers: int = 1
    rate: float = 2e-3
    rivals: int = 1024


class Inverter(nn.Module):
    """From hidden states to scores of tokens; see the module."""

    def __init__(self, embeddings: Tensor, width: int, layers: int) -> None:
        """Set up for the embeddings [V, D]."""
        super().__init__()
        hidden = embeddings.shape[1]
        self._mean, self._scale = torch.zeros(hidden), 1.0
        self._table = functional.normalize(embeddings - embeddings.mean(0))
        self._bias = nn.Parameter(torch.zeros(len(embeddings)))
        self._inward = nn.Linear(hidden, width)
        block = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self._blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self._outward = nn.Linear(width + hidden, hidden)

    def learn_scale(self, states: Tensor) -> None:
        """Take mean and size of the states [T, D] that it will read."""
        self._mean = states.mean(0)
        self._scale = float((states - self._mean).square().mean().sqrt().clamp(min=1e-6))

    def forward(self, states: Tensor, lengths: tuple[int, ...]) -> Tensor:
        """States [T, D] to points [T, D] in the space of the embeddings."""
        width = max(lengths)
        index, mask = flat_index(lengths, width), mask_of(lengths, width)
        flat = (states - self._mean) / self._scale
        inward = self._inward(flat)
        padded = unpack(inward, index, len(lengths), width)
        mixed = self._blocks(padded, src_key_padding_mask=mask == 0)
        out: Tensor = self._outward(torch.cat([pack(mixed, index), flat], 1))
        return out

    def scores(self, points: Tensor, names: Tensor) -> Tensor:
        """Of points [T, D] against the tokens `names` [K]: [T, K]."""
        return points @ self._table[names].T + self._bias[names]

    def read(self, texts: Texts, batch: int = 64) -> Tensor:
        """The ids [T] that the states seem to be of."""
        names = torch.arange(len(self._table))
        guesses = []
        for start in range(0, len(texts.lengths), batch):
            some = texts.take(range(start, min(start + batch, len(texts.lengths))))
            with torch.no_grad():
                points = self(some.states, some.lengths)
                guesses.append(self.scores(points, names).argmax(1))
        return torch.cat(guesses)


def learn(
    embeddings: Tensor, public: Texts, defence: Defence, training: Training, seed: int
) -> Inverter:
    """An inverter that learned on public texts, defended in every batch with another secret.

    Args:
        embeddings: of the vocabulary [V, D].
        public: undefended states with their tokens.
        defence: what the attacker knows of it; `defence.NONE` for a blind attacker.
        training: how long and how wide.
        seed: of everything drawn.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inverter = Inverter(embeddings, training.width, training.layers)
    inverter.learn_scale(defence.imitate(public.states, public.lengths, seed))
    optimizer = torch.optim.AdamW(inverter.parameters(), lr=training.rate, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.rate, total_steps=training.steps, pct_start=0.1
    )
    generator = np.random.default_rng((seed, len(public.lengths)))
    for step in range(training.steps):
        some = public.take(generator.integers(len(public.lengths), size=training.batch).tolist())
        seen = defence.imitate(some.states, some.lengths, seed + 1 + step)
        rivals = generator.integers(len(embeddings), size=training.rivals)
        names, places = np.unique(
            np.concatenate([some.tokens.numpy(), rivals]), return_inverse=True
        )
        scores = inverter.scores(inverter(seen, some.lengths), torch.from_numpy(names))
        loss = functional.cross_entropy(scores, torch.from_numpy(places[: len(some.tokens)]))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(inverter.parameters(), 1.0)
        optimizer.step()
        rates.step()
    return inverter

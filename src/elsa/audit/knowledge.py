"""What an attacker declares to know besides the transcript: public model, public text, defence.

The public model is no secret in split learning: the edge holds its middle, and the rest is on the
same page of the same hub. The adapters of a device's own blocks pass through the edge at every
edge round, so the edge can run the very bottom of a device.

Shapes: T tokens of some texts without padding, D hidden size, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elsa.audit.defence import Defence
from elsa.core.ragged import flat_index, pack
from elsa.data.batches import Examples, make_batch
from elsa.model.segments import Bottom, Top, Trunk

BATCH = 64
COVER = 16
"""Tokens of a text of random tokens, ends included."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Hidden states of some texts at the first cut.

    Attributes:
        states: [T, D], float32.
        lengths: tokens of each text; their sum is T.
        tokens: ids [T], where they are known; else empty.
    """

    states: Tensor
    lengths: tuple[int, ...]
    tokens: Tensor

    def take(self, texts: Sequence[int]) -> "Texts":
        """These texts, in this order."""
        ends = np.cumsum(self.lengths)
        rows = [np.arange(ends[it] - self.lengths[it], ends[it]) for it in texts]
        index = torch.from_numpy(np.concatenate(rows))
        tokens = self.tokens[index] if len(self.tokens) else self.tokens
        return Texts(self.states[index], tuple(self.lengths[it] for it in texts), tokens)


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What the attacker knows.

    Attributes:
        bottom, trunk, top: the public model, cut as the devices cut it.
        public: public text, of no device.
        pad_id: token that fills up.
        defence: what the device does to its states, without the device's secrets.
    """

    bottom: Bottom
    trunk: Trunk
    top: Top
    public: Examples
    pad_id: int
    defence: Defence

    @cached_property
    def embeddings(self) -> Tensor:
        """Of each token, as the public model has them [V, D]."""
        model: Any = self.bottom.model
        weight: Tensor = model.base_model.get_input_embeddings().weight
        return weight.detach().float()

    @cached_property
    def ends(self) -> Tensor:
        """Ids that all public texts begin or end with; they tell nothing."""
        found = set.intersection(*({int(ids[0]), int(ids[-1])} for ids in self.public.input_ids))
        return torch.tensor(sorted(found))

    def see(self, examples: Examples, adapters: Mapping[str, Tensor]) -> Texts:
        """The undefended states of some texts, in order, under a bottom with these adapters."""
        self.bottom.bind(adapters)
        states, tokens = [], []
        lengths: list[int] = []
        for start in range(0, len(examples), BATCH):
            rows = range(start, min(start + BATCH, len(examples)))
            batch = make_batch(examples, rows, self.pad_id)
            index = flat_index(batch.lengths, batch.input_ids.shape[1])
            with torch.no_grad():
                hidden = self.bottom(batch.input_ids, batch.mask, batch.token_types)
            states.append(pack(hidden, index).float())
            tokens.append(batch.input_ids.flatten()[index])
            lengths.extend(batch.lengths)
        return Texts(torch.cat(states), tuple(lengths), torch.cat(tokens))

    def covering(self, seed: int) -> Examples:
        """Texts of random tokens that hold each token of the vocabulary once.

        Natural public text lacks many words; an attacker makes up texts that have them.
        """
        first, last = (np.asarray(self.public.input_ids[0])[[end]] for end in (0, -1))
        inside = COVER - 2
        count = -(-len(self.embeddings) // inside) * inside
        order = np.random.default_rng(seed).permutation(count) % len(self.embeddings)
        has_ends = len(self.ends) > 0
        return Examples(
            [
                np.concatenate([first, ids, last] if has_ends else [ids]).astype(np.int32)
                for ids in order.reshape(-1, inside)
            ]
        )

"""Bottom, trunk and top of a model, and the unsplit model that they must equal.

Shapes: B sequences, S tokens, D hidden size, C labels, V vocabulary. Sequences are padded on the
right; `mask` [B, S] (int64) is 1 on tokens, or None if there is no padding. Hidden states are in
the dtype that the checkpoint was opened with, logits in float32.
"""

from typing import Any

import torch
from torch import Tensor, nn

from elsa.core.ragged import Reach
from elsa.core.score import Tally, tally
from elsa.core.split import Split
from elsa.errors import SplitError
from elsa.model import adapters, heads
from elsa.model.checkpoint import Checkpoint
from elsa.model.families import Family
from elsa.model.segment import Segment
from elsa.model.skeleton import words_alone
from elsa.model.tasks import CausalLM, Classification, LoraSpec, Task


class Bottom(Segment):
    """Embeddings and the first p blocks."""

    def forward(
        self, input_ids: Tensor, mask: Tensor | None = None, token_types: Tensor | None = None
    ) -> Tensor:
        """Token ids [B, S] (int64) -> h1 [B, S, D]; `token_types` [B, S] for pairs of texts."""
        self._ready()
        with self._precision():
            hidden: Tensor = self.model(
                **self._embed(input_ids, mask, token_types)
            ).last_hidden_state
        return hidden


class Trunk(Segment):
    """The blocks between the cuts."""

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """h1 [B, S, D] -> h2 [B, S, D]; what stands where padding is does not matter."""
        self._ready()
        hidden = hidden.to(self.device)
        with self._precision():
            out: Tensor = self.model(
                inputs_embeds=hidden, attention_mask=self._mask(mask)
            ).last_hidden_state
        return out


class _Ended(Segment):
    """A segment with the head."""

    @property
    def head_task(self) -> str:
        """Name of the task that the head is of; empty if there is only one."""
        return self.task.name if isinstance(self.task, Classification) else ""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy.

        Args:
            logits: what `forward` gave.
            labels: [B] for classification; token ids [B, S] for a causal LM, each token being
                the label of the one before it, -100 where it shall not count.
        """
        if isinstance(self.task, Classification):
            return heads.classification_loss(logits, labels.to(logits.device))
        return heads.next_token_loss(logits, labels.to(logits.device))

    def _learn(self, inputs: dict[str, Any], mask: Tensor | None, labels: Tensor) -> Tensor:
        labels = labels.to(self.device)
        if isinstance(self.task, Classification):
            return self.loss(self._finish(inputs, mask).float(), labels)
        states, targets, _ = self._predicting(inputs, labels)
        return heads.chunked_loss(states, targets, words_alone(self.model), self._rows)

    def _score(self, inputs: dict[str, Any], mask: Tensor | None, labels: Tensor) -> Tally:
        labels = labels.to(self.device)
        if isinstance(self.task, Classification):
            return tally(self._finish(inputs, mask).float(), labels)
        chosen = self._predicting(inputs, labels)
        return heads.chunked_tally(*chosen, words_alone(self.model), self._rows)

    @property
    def _rows(self) -> int:
        """Tokens whose logits exist at once."""
        return max(heads.CHUNK // self.checkpoint.vocabulary, 1)

    def _predicting(self, inputs: dict[str, Any], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        final = self.model.base_model(**inputs).last_hidden_state
        return heads.predicting(final, labels)

    def _finish(self, inputs: dict[str, Any], mask: Tensor | None) -> Tensor:
        if not isinstance(self.task, Classification):
            logits: Tensor = self.model(**inputs).logits
            return logits
        return self._judge(self.model(**inputs).last_hidden_state, mask)

    def _judge(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        assert isinstance(self.task, Classification)
        if self.prediction is not None:
            hidden = self.prediction(hidden)
        mask = None if mask is None else mask.to(self.device)
        scores: Tensor = self.head(heads.pool(hidden, mask, self.task.pooling))
        return scores


class Top(_Ended):
    """The last q blocks, the final norm and the head."""

    @property
    def reach(self) -> Reach:
        """What it uses of h2."""
        return reach_of(self.checkpoint.family, self.task, len(self.blocks))

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """h2 [B, S, D] -> logits, [B, C] for classification or [B, S, V] for a causal LM."""
        self._ready()
        with self._precision():
            return self._finish(self._inputs(hidden, mask), mask).float()

    def learn(self, hidden: Tensor, mask: Tensor | None, labels: Tensor) -> Tensor:
        """Mean loss of h2 [B, S, D]: `loss(forward(...))` up to rounding.

        Of a causal LM's logits only some exist at a time; see `heads.chunked_loss`.
        """
        self._ready()
        with self._precision():
            return self._learn(self._inputs(hidden, mask), mask, labels)

    @torch.no_grad()
    def score(self, hidden: Tensor, mask: Tensor | None, labels: Tensor) -> Tally:
        """Right predictions and losses of h2 [B, S, D], with as few logits as in `learn`."""
        self._ready()
        with self._precision():
            return self._score(self._inputs(hidden, mask), mask, labels)

    def _inputs(self, hidden: Tensor, mask: Tensor | None) -> dict[str, Any]:
        return {"inputs_embeds": hidden.to(self.device), "attention_mask": self._mask(mask)}

    def final(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """h2 [B, S, D] -> final hidden states [B, S, D], as no head has seen them."""
        self._ready()
        with self._precision():
            states: Tensor = self.model.base_model(**self._inputs(hidden, mask)).last_hidden_state
        return states

    def pooled(self, final: Tensor, mask: Tensor | None = None) -> Tensor:
        """Final hidden states [B, S, D] -> [B, D], float32.

        Pooled as the task's head pools; over a language model's tokens, the mean.
        """
        mask = None if mask is None else mask.to(self.device)
        pooling = self.task.pooling if isinstance(self.task, Classification) else "mean"
        return heads.pool(final.to(self.device).float(), mask, pooling)

    def judge(self, final: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the head of a classification makes of final states: [B, S, D] -> logits [B, C]."""
        self._ready()
        with self._precision():
            return self._judge(final.to(self.device), mask).float()


def reach_of(family: Family, task: Task, blocks: int) -> Reach:
    """What a top of so many blocks uses of h2.

    With none, one row a text may do, as pooling then comes first; a language model, whose norm and
    head see a token at a time, uses those tokens that predict one that counts.
    """
    if blocks:
        return "all"
    if not isinstance(task, Classification):
        return "some"
    if task.pooling == "mean":
        return "all" if family.final_norm or family.prediction else "mean"
    return "first" if task.pooling == "cls" else "last"


class Whole(_Ended):
    """The unsplit model: what bottom, trunk and top together must equal."""

    def forward(
        self, input_ids: Tensor, mask: Tensor | None = None, token_types: Tensor | None = None
    ) -> Tensor:
        """Token ids [B, S] -> logits, [B, C] for classification or [B, S, V] for a causal LM."""
        self._ready()
        with self._precision():
            return self._finish(self._embed(input_ids, mask, token_types), mask).float()

    def learn(
        self,
        input_ids: Tensor,
        mask: Tensor | None,
        labels: Tensor,
        token_types: Tensor | None = None,
    ) -> Tensor:
        """Mean loss of token ids [B, S], taken as `Top.learn` takes it."""
        self._ready()
        with self._precision():
            return self._learn(self._embed(input_ids, mask, token_types), mask, labels)


def build_bottom(checkpoint: Checkpoint, split: Split, task: Task, lora: LoraSpec) -> Bottom:
    """Embeddings and blocks [0, p); raises as `Segment` does."""
    _check(checkpoint, split)
    return Bottom(checkpoint, task, lora, split.bottom_blocks, first=True, last=False)


def build_trunk(checkpoint: Checkpoint, split: Split, task: Task, lora: LoraSpec) -> Trunk:
    """Blocks [p, M - q); raises as `Segment` does."""
    _check(checkpoint, split)
    return Trunk(checkpoint, task, lora, split.trunk_blocks, first=False, last=False)


def build_top(checkpoint: Checkpoint, split: Split, task: Task, lora: LoraSpec) -> Top:
    """Blocks [M - q, M), final norm and head; raises as `Segment` does."""
    _check(checkpoint, split)
    return Top(checkpoint, task, lora, split.top_blocks, first=False, last=True)


def build_end(checkpoint: Checkpoint, split: Split, task: Task, lora: LoraSpec) -> Top:
    """Blocks [p, M), final norm and head: the edge's part of a two-part split."""
    _check(checkpoint, split)
    return Top(checkpoint, task, lora, split.trunk_blocks, first=False, last=True)


def build_whole(checkpoint: Checkpoint, task: Task, lora: LoraSpec) -> Whole:
    """The unsplit model; raises as `Segment` does."""
    return Whole(checkpoint, task, lora, range(checkpoint.blocks), first=True, last=True)


def join(bottom: Bottom, trunk: Trunk, top: Top) -> Whole:
    """The inverse of the split: the unsplit model made of the three parts' own modules.

    Raises:
        SplitError: the parts do not follow each other, or are not all of the model.
    """
    checkpoint, family = bottom.checkpoint, bottom.checkpoint.family
    blocks = [*bottom.blocks, *trunk.blocks, *top.blocks]
    if blocks != list(range(checkpoint.blocks)):
        raise SplitError(
            f"cannot join {bottom._span()}, {trunk._span()} and {top._span()}: together they "
            f"must be [0, {checkpoint.blocks}), each block once"
        )
    whole = Whole(
        checkpoint, top.task, top.lora, range(checkpoint.blocks), first=True, last=True, load=False
    )
    base, ends = whole.model.base_model, top.model.base_model
    layers = [layer for part in (bottom, trunk, top) for layer in part._layers()]
    base.set_submodule(family.layers, nn.ModuleList(layers), strict=True)
    for path in family.embeddings:
        if hasattr(base, path):
            base.set_submodule(path, bottom.model.get_submodule(path), strict=True)
    if family.final_norm:
        base.set_submodule(family.final_norm, ends.get_submodule(family.final_norm), strict=True)
    if isinstance(top.task, CausalLM):
        whole.model.lm_head = top.model.lm_head
    whole.prediction, whole.head = top.prediction, top.head
    whole._tables = bottom._tables | top._tables
    whole._collect()
    whole._bound = bottom._bound and trunk._bound and top._bound
    return whole


def adapter_shapes(checkpoint: Checkpoint, task: Task, lora: LoraSpec) -> dict[str, torch.Size]:
    """Shapes of all trainable tensors of a model, in canonical order, without reading weights."""
    blocks = range(checkpoint.blocks)
    return Whole(checkpoint, task, lora, blocks, first=True, last=True, load=False).adapter_shapes


def initial_adapters(
    checkpoint: Checkpoint, task: Task, lora: LoraSpec, seed: int
) -> dict[str, Tensor]:
    """Trainable tensors to start from, float32, in canonical order; see `adapters.draw`."""
    return adapters.draw(adapter_shapes(checkpoint, task, lora), seed)


def _check(checkpoint: Checkpoint, split: Split) -> None:
    if split.blocks != checkpoint.blocks:
        raise SplitError(
            f"{checkpoint.directory}: a split of {split.blocks} blocks, and the model has "
            f"{checkpoint.blocks}"
        )

"""The public probes, and the axes that answers to them are seen on.

Probes are public texts, the same for all and no device's own. Whoever holds a device's adapters can
see what they make of the probes, as the base weights are public: nothing is asked of the device,
and it cannot answer otherwise than it trained. Shapes: Q probes, D hidden size, d axes.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from elsa.config.schema import Config
from elsa.core.fingerprint import fingerprint, packed, shared_basis
from elsa.core.moves import move, packed_move, shared_axes
from elsa.core.split import Split
from elsa.data.batches import Batch, Examples, eval_batches
from elsa.engine.parts import ModelParts
from elsa.engine.public import probe_text
from elsa.errors import ConfigError
from elsa.model.tasks import Classification
from elsa.model.tokenizer import Tokenizer
from elsa.roles.probing import Probing, Seen

BATCH = 32
"""Probes at a time; changes memory and speed only."""


class Prober:
    """Runs the probes through models with given adapters."""

    def __init__(self, models: Mapping[str, ModelParts], batches: Sequence[Batch]) -> None:
        """Set up with the model of each task."""
        self._models = models
        self._batches = batches
        self._probes = sum(len(batch.rows) for batch in batches)

    def look(self, task: str, split: Split, adapters: Mapping[str, Tensor]) -> Seen:
        """See `Probing.look`.

        Raises:
            AdapterError: a tensor is missing or has another shape.
        """
        model = self._models[task]
        segments, trunk = model.segments(split), model.trunk(split)
        assert segments.top is not None  # probes are for splits in three parts
        for part in (segments.bottom, trunk, segments.top):
            part.bind(adapters)
        states, final = torch.empty(self._probes, segments.hidden), []
        with torch.no_grad():
            for batch in self._batches:
                h1 = segments.bottom(batch.input_ids, batch.mask, batch.token_types)
                final.append(segments.top.final(trunk(h1, batch.mask), batch.mask))
                states[list(batch.rows)] = segments.top.pooled(final[-1], batch.mask).cpu()
        return Seen(states, tuple(final))

    def judge(self, task: str, split: Split, adapters: Mapping[str, Tensor], seen: Seen) -> Tensor:
        """See `Probing.judge`.

        Raises:
            AdapterError: a tensor is missing or has another shape.
        """
        model = self._models[task]
        if not isinstance(model.task, Classification):
            return torch.empty(self._probes, 0)
        top = model.segments(split).top
        assert top is not None
        top.bind(adapters)
        scores = torch.empty(self._probes, model.task.labels)
        with torch.no_grad():
            for batch, final in zip(self._batches, seen.final, strict=True):
                scores[list(batch.rows)] = top.judge(final, batch.mask).cpu()
        return scores


def open_probing(config: Config, models: Mapping[str, ModelParts], tokenizer: Tokenizer) -> Probing:
    """What an edge needs to see how adapters behave, given the model of each task.

    Raises:
        ConfigError: there are too few probes.
        ElsaError: the probes cannot be had.
    """
    it = config.cluster
    texts = probe_text(config).texts()
    if len(texts) < it.probe_count:
        raise ConfigError(
            f"cluster.probes = '{it.probes}' has {len(texts)} texts, fewer than "
            f"cluster.probe_count = {it.probe_count}: lower it, or name a file with more"
        )
    encoded = tokenizer.encode(texts[: it.probe_count], max_tokens=config.model.max_tokens)
    examples = Examples([each.input_ids for each in encoded])
    batches = list(eval_batches(examples, BATCH, tokenizer.pad_id))
    prober = Prober(models, batches)
    task, model = next(iter(models.items()))
    if it.fingerprint == "gaussian":
        return Probing(prober.look, prober.judge, _lying(prober, task, model, config))
    axes = shared_axes(model.checkpoint.hidden_size, it.axes, config.run.seed)
    return Probing(
        prober.look,
        prober.judge,
        lambda before, after: packed_move(move(before, after, axes)),
    )


def _lying(
    prober: Prober, task: str, model: ModelParts, config: Config
) -> Callable[[Tensor, Tensor], bytes]:
    """Writes how states lie on the principal axes of the base model's."""
    split = Split.of(model.checkpoint.blocks, config.split.bottom, config.split.top)
    segments = model.segments(split)
    parts = (segments.bottom, model.trunk(split), segments.top)
    base = {
        name: torch.zeros(shape)
        for part in parts
        if part is not None
        for name, shape in part.adapter_shapes.items()
    }
    basis = shared_basis(prober.look(task, split, base).states, config.cluster.axes)
    return lambda _, after: packed(fingerprint(basis.project(after)))

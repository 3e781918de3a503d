"""Was this text trained on? Asked of the adapters, by whoever gets them.

The attacker holds texts with their labels, and thresholds their loss: who was trained on has a
lower one (Yeom et al. 2018, arXiv 1709.01604). Calibrated, the loss under the adapters from
before the training is taken off first, so that texts that are easy for anyone do not pass for
members (Watson et al. 2022, arXiv 2111.08440).
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from elsa.audit.knowledge import BATCH, Knowledge
from elsa.core.score import IGNORED
from elsa.data.batches import Examples, make_batch


def losses(knowledge: Knowledge, adapters: Mapping[str, Tensor], examples: Examples) -> list[float]:
    """Mean loss of each text under the whole model with these adapters, in order."""
    for part in (knowledge.bottom, knowledge.trunk, knowledge.top):
        part.bind(adapters)
    found: list[float] = []
    for start in range(0, len(examples), BATCH):
        rows = range(start, min(start + BATCH, len(examples)))
        batch = make_batch(examples, rows, knowledge.pad_id)
        with torch.no_grad():
            h1 = knowledge.bottom(batch.input_ids, batch.mask, batch.token_types)
            logits = knowledge.top(knowledge.trunk(h1, batch.mask), batch.mask)
        found.extend(_each(logits, batch.labels).tolist())
    return found


def _each(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.dim() == 1:
        return functional.cross_entropy(logits, labels, reduction="none")
    kept = labels[:, 1:] != IGNORED
    each = functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none"
    )
    return each.sum(1) / kept.sum(1).clamp(min=1)

"""Public directions: in which of them hidden states of public text vary most at a cut.

They follow from the public model and a public data set alone, so both ends can know them without a
word. Shapes: T tokens, D hidden size, r directions.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elsa.config.schema import Config
from elsa.core.ragged import flat_index, pack
from elsa.core.split import Split
from elsa.data.batches import Examples, eval_batches
from elsa.engine.parts import ModelParts
from elsa.engine.public import axes_text
from elsa.errors import ConfigError
from elsa.model.tokenizer import Tokenizer

if TYPE_CHECKING:  # compiled, so imported only where they are used
    from elsa.core.bands import Bands

ROWS = 256
"""Public texts that axes are found from, the first ones."""
BATCH = 32
"""Of them at a time, of like length; changes memory and speed only."""


class Directions:
    """Public axes at both cuts, each found when it is first asked for, and held once.

    Attributes:
        asked: most directions asked for so far, by hop.
    """

    def __init__(self, axes_of: Callable[[str], Tensor], hidden: int) -> None:
        """Nothing is computed yet.

        Args:
            axes_of: hop "h1" or "h2" -> [D, R] orthonormal columns, by falling variance.
            hidden: D.
        """
        self._axes_of = cache(axes_of)
        self._hidden = hidden
        self.asked: dict[str, int] = {}
        self.bands = cache(self._bands)

    def first(self, hop: str, rank: int) -> Tensor:
        """The first r directions [D, r]; raises ConfigError if there are not so many."""
        if hop not in ("h1", "h2"):
            raise ConfigError(f"{hop} has no public directions, only h1 and h2 have")
        if not 1 <= rank <= self._hidden:
            raise ConfigError(
                f"{rank} public directions; allowed: 1 to {self._hidden}, the hidden size"
            )
        self.asked[hop] = max(rank, self.asked.get(hop, 0))
        axes = self._axes_of(hop)
        if axes.shape[1] < rank:
            raise ConfigError(
                f"{rank} public directions for {hop}, where {axes.shape[1]} are known; more texts "
                "in wire.public give more"
            )
        return axes[:, :rank].contiguous()

    def _bands(self, hop: str, most: int) -> "Bands":
        """So many axes apart from the rest."""
        from elsa.core.bands import Bands

        return Bands(self.first(hop, most))


def public_directions(config: Config, model: ModelParts, tokenizer: Tokenizer) -> Directions:
    """Directions of the base model's states; nothing is computed before they are asked for."""
    split = Split.of(model.checkpoint.blocks, config.split.bottom, config.split.top)

    @cache
    def axes() -> dict[str, Tensor]:
        texts = axes_text(config).texts()[:ROWS]
        encoded = tokenizer.encode(texts, max_tokens=config.model.max_tokens)
        examples = Examples([it.input_ids for it in encoded])
        states = _states(model, split, examples, tokenizer.pad_id)
        return {hop: _principal(seen) for hop, seen in states.items()}

    return Directions(lambda hop: axes()[hop], model.checkpoint.hidden_size)


def _principal(states: Tensor) -> Tensor:
    """Axes [D, r] of states [T, D], by falling variance; so many tokens say nothing of more."""
    axes: Tensor = torch.linalg.eigh(states.double().T @ states.double())[1]
    return axes.flip(1)[:, : len(states)].float().contiguous()


def _states(model: ModelParts, split: Split, examples: Examples, pad_id: int) -> dict[str, Tensor]:
    """Hidden states [T, D] at both cuts, of the model as it was published."""
    bottom, trunk = model.segments(split).bottom, model.trunk(split)
    for part in (bottom, trunk):
        part.bind({name: torch.zeros(shape) for name, shape in part.adapter_shapes.items()})
    found: dict[str, list[Tensor]] = {"h1": [], "h2": []}
    with torch.no_grad():
        for batch in eval_batches(examples, BATCH, pad_id):
            index = flat_index(batch.lengths, batch.input_ids.shape[1])
            h1 = bottom(batch.input_ids, batch.mask, batch.token_types)
            found["h1"].append(pack(h1, index).cpu())
            found["h2"].append(pack(trunk(h1, batch.mask), index).cpu())
    return {hop: torch.cat(states) for hop, states in found.items()}

"""From the words of `[wire]` to each hop's codec; `elsa.config.words` says what they may be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elsa.config.schema import Config
from elsa.config.words import EXACT, REMEMBERED, Stage, Wire, read_words, words_of
from elsa.core.cast import Cast
from elsa.core.chain import Chain
from elsa.core.codec import EXACT as UNCODED
from elsa.core.codec import Codec, Coder, HopCodecs, Identity
from elsa.core.feedback import ErrorFeedback
from elsa.core.hadamard import Rotate
from elsa.core.quantize import Quantize
from elsa.core.sketch import Center, CountSketch
from elsa.core.sparse import TopK
from elsa.core.subspace import SubspaceCoder
from elsa.engine.directions import Directions
from elsa.errors import ConfigError
from elsa.roles.parcel import Sent

if TYPE_CHECKING:  # compiled, so imported only where they are used
    from elsa.core.temporal import Temporal
    from elsa.core.waterfill import WaterFill

Say = Callable[[str], None]
SKETCH_ROWS = 3
"""Y of a sketch that is given by its ratio alone."""

_ADAPTERS: dict[str, Sent] = {"balanced": "bfloat16", "tiny": "bfloat16"}
"""How adapters travel, by preset, where not as they are."""


@dataclass(frozen=True)
class Place:
    """Where a codec is to work.

    Attributes:
        hop: "h1", "h2", "g2" or "g1".
        hidden: D.
        directions: public ones, for subspace and axes; None where there are none.
        folder: where to remember on disk; None remembers in memory.
    """

    hop: str
    hidden: int
    directions: Directions | None = None
    folder: Path | None = None


def hop_codecs(
    wire: Wire, hidden: int, directions: Directions | None = None, owner: str = ""
) -> HopCodecs:
    """The codecs of one end: the preset's, or a hop's own.

    Args:
        wire: what was chosen.
        hidden: D.
        directions: public ones, for subspace and axes.
        owner: whose they are; names the folder below `wire.folder`, if that is set.

    Raises:
        ConfigError: a hop's words are no codec, or do not go with D.
    """
    made: dict[str, Codec] = {}
    for hop, words in words_of(wire, hidden).items():
        try:
            folder = Path(wire.folder) / owner / hop if wire.folder else None
            made[hop] = parse(words, Place(hop, hidden, directions, folder))
        except ConfigError as error:
            raise ConfigError(f"wire.{hop} = '{words}': {error}") from error
    return HopCodecs(**made)


def codecs_by(config: Config, hidden: int, directions: Directions) -> Callable[[str], HopCodecs]:
    """What makes the codecs of one end, given whose they are.

    Args:
        config: of the run.
        hidden: D.
        directions: public ones, for subspace and axes.
    """
    if config.split.layout == "whole":  # no hidden state leaves a device
        return lambda _: UNCODED
    return partial(hop_codecs, config.wire, hidden, directions)


def check_hidden(wire: Wire, hidden: int) -> None:
    """See that the codecs go with D = `hidden`, without any of a model's axes or weights.

    Raises:
        ConfigError: with the hop whose words do not, and what is allowed.
    """
    in_memory = wire.model_copy(update={"folder": ""})
    hop_codecs(in_memory, hidden, Directions(lambda _: torch.eye(hidden), hidden))


def prepare_codecs(wire: Wire, say: Say = lambda _: None) -> None:
    """Have the loops of the codecs compiled, where this is the first time on this machine.

    Args:
        wire: what was chosen.
        say: told before anything slow.

    Raises:
        ConfigError: they cannot be compiled here.
    """
    if {words.split(":")[0] for words in words_of(wire).values()}.isdisjoint(_COMPILED):
        return
    from elsa.core import compiled

    if not compiled.ready():
        say("compiling the codecs for this processor, once (about 15 seconds)")
    compiled.make()


def adapters_sent(wire: Wire) -> Sent:
    """The type in which adapters travel: the preset's, or the one asked for."""
    return wire.adapters if wire.adapters else _ADAPTERS.get(wire.preset, "float32")


def parse(words: str, place: Place) -> Codec:
    """The codec that the words describe.

    Raises:
        ConfigError: an unknown stage, wrong arguments, stages that do not go together, or with D.
    """
    return _made(read_words(words, place.hop), place)


def _made(stages: Sequence[Stage], place: Place) -> Codec:
    first = stages[0]
    if first.name == EXACT:
        return Identity()
    if first.name == "fill":
        return _fill(first, place)
    if first.name == "temporal":
        return _temporal(first, place)
    coder = _coder([it for it in stages if it.name not in ("feedback", "subspace")], place)
    for stage in reversed(stages):
        if stage.name == "subspace":
            coder = _subspace(stage, coder, place)
        if stage.name == "feedback":
            coder = ErrorFeedback(coder, REMEMBERED * 10**6, place.folder)
    coder.size(1, place.hidden)
    return coder


def _coder(stages: Sequence[Stage], place: Place) -> Coder:
    """Transforms, and a coder at their end or float32."""
    parts = [_PARTS[it.name](it.arguments, place) for it in stages]
    last: Coder = parts.pop() if not hasattr(parts[-1], "forward") else Cast("float32")
    return Chain(tuple(parts), last) if parts else last


def _sketch(arguments: Sequence[Any], place: Place) -> CountSketch:
    rows, size, shrink = arguments
    if rows is not None:
        return CountSketch(rows, size, shrink)
    buckets = int(place.hidden / (SKETCH_ROWS * size))
    if not buckets:
        raise ConfigError(
            f"sketch: a ratio of {size:g} leaves {SKETCH_ROWS} rows no bucket of hidden size "
            f"{place.hidden}; allowed: a ratio up to {place.hidden / SKETCH_ROWS:g}"
        )
    return CountSketch(SKETCH_ROWS, buckets, shrink)


def _fill(stage: Stage, place: Place) -> "WaterFill":
    from elsa.core.waterfill import WaterFill

    error, axes = stage.arguments[:2]
    if not axes:
        return WaterFill(error)
    if place.directions is None:
        raise ConfigError("fill: axes are public directions, and none are known here")
    return WaterFill(error, place.directions.bands(place.hop, axes))


def _temporal(stage: Stage, place: Place) -> "Temporal":
    from elsa.core.temporal import Temporal

    return Temporal(_fill(stage, place), stage.arguments[2] * 10**6, place.folder)


def _subspace(stage: Stage, remainder: Coder, place: Place) -> SubspaceCoder:
    if place.directions is None:
        raise ConfigError("subspace: no public directions are known here")
    (rank,) = stage.arguments
    return SubspaceCoder(place.directions.first(place.hop, rank), Quantize(8), remainder)


_COMPILED = ("fill", "temporal")
_PARTS: dict[str, Callable[[Sequence[Any], Place], Any]] = {
    "float32": lambda _, __: Cast("float32"),
    "bfloat16": lambda _, __: Cast("bfloat16"),
    "quantize": lambda arguments, _: Quantize(*arguments),
    "top": lambda arguments, _: TopK(*arguments),
    "rotate": lambda _, __: Rotate(),
    "center": lambda arguments, _: Center(*arguments),
    "sketch": _sketch,
}

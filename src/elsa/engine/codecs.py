"""From the words of `[wire]` to the codec of each hop.

A codec is written as its stages joined by "+", each a name with its arguments after ":", transforms
first and one coder last: "rotate+quantize:4:token:gauss". A codec's name on the wire reads alike.

| stage | arguments | what it is |
|---|---|---|
| exact | | the tensor's own bytes; stands alone |
| float32, bfloat16 | | coder: a type of its own on the wire |
| quantize | bits : block or token : uniform or gauss : nearest or stochastic | coder: few bits |
| top | k | coder: the k largest values of a token |
| feedback | | first of all: adds what a sample's last packet left out to its next |
| subspace | r | before stages: r public directions at 8 bits, the stages code the rest |
| rotate | | transform: a random rotation, for quantize |
| center | token or batch | transform: sends the mean apart |
| sketch | ratio, or Y x Z : shrink | transform: the paper's count sketch |
| fill | error : axes | as many bits for each band of a token as it deserves; stands alone |
| temporal | error : axes : megabytes | the same for what changed since the last epoch |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elsa.config.schema import Wire
from elsa.core.cast import Cast
from elsa.core.chain import Chain
from elsa.core.codec import Codec, Coder, HopCodecs, Identity, Transform
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
EXACT = "exact"
HOPS = ("h1", "h2", "g2", "g1")
SKETCH_ROWS = 3
"""Y of a sketch that is given by its ratio alone."""

REMEMBERED = 64
"""Megabytes that `temporal` remembers at each end of a hop, unless told otherwise."""

PRESETS: dict[str, dict[str, str]] = {
    "exact": dict.fromkeys(HOPS, EXACT),
    "balanced": dict.fromkeys(HOPS[:2], "temporal:0.15:64") | dict.fromkeys(HOPS[2:], "fill:0.3"),
    "tiny": dict.fromkeys(HOPS[:2], "temporal:0.3:64") | dict.fromkeys(HOPS[2:], "fill:0.5"),
    "paper": dict.fromkeys(HOPS, "sketch:2"),
}
"""The codec of each hop, by preset."""
_ADAPTERS: dict[str, Sent] = {"balanced": "bfloat16", "tiny": "bfloat16"}
"""How adapters travel, by preset, where not as they are."""


@dataclass(frozen=True)
class Place:
    """Where a codec is to work.

    Attributes:
        hop: "h1", "h2", "g2" or "g1".
        hidden: D.
        directions: public ones, for subspace; None where there are none.
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
        directions: public ones, for subspace.
        owner: whose they are; names the folder below `wire.folder`, if that is set.

    Raises:
        ConfigError: a hop's words are no codec, or do not go with D.
    """
    made: dict[str, Codec] = {}
    for hop, words in words_of(wire).items():
        try:
            folder = Path(wire.folder) / owner / hop if wire.folder else None
            made[hop] = parse(words, Place(hop, hidden, directions, folder))
        except ConfigError as error:
            raise ConfigError(f"wire.{hop} = '{words}': {error}") from error
    return HopCodecs(**made)


def words_of(wire: Wire) -> dict[str, str]:
    """The words of each hop's codec: the preset's, or the hop's own."""
    return PRESETS[wire.preset] | {hop: own for hop in HOPS if (own := getattr(wire, hop))}


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


Make = Callable[[Sequence[str], Place], Any]


def adapters_sent(wire: Wire) -> Sent:
    """The type in which adapters travel: the preset's, or the one asked for."""
    return wire.adapters if wire.adapters else _ADAPTERS.get(wire.preset, "float32")


def parse(words: str, place: Place) -> Codec:
    """The codec that the words describe.

    Raises:
        ConfigError: an unknown stage, wrong arguments, or stages that do not go together.
    """
    name, *arguments = words.split(":")
    if alone := _ALONE.get(name):
        made: Codec = _built(alone, arguments, place, words)
        return made
    first, _, rest = words.partition("+")
    if first.split(":")[0] in _OUTER:
        inner = parse(rest, place)
        if not isinstance(inner, Coder):
            raise ConfigError(f"'{first}' goes before stages, not before '{inner.name}'")
        if first == "feedback":
            return ErrorFeedback(inner, REMEMBERED * 10**6, place.folder)
        subspace: Codec = _built(_subspace(inner), first.split(":")[1:], place, first)
        return subspace
    *before, last = (_stage(each, place) for each in words.split("+"))
    transforms: list[Transform] = []
    for each in before:
        if not hasattr(each, "forward"):
            raise ConfigError(f"'{each.name}' is a coder and must come last")
        transforms.append(each)
    if hasattr(last, "forward"):
        transforms.append(last)
        last = Cast("float32")
    coder: Coder = Chain(tuple(transforms), last) if transforms else last
    coder.size(1, place.hidden)
    return coder


def _stage(text: str, place: Place) -> Any:
    name, *arguments = text.strip().split(":")
    make = _STAGES.get(name)
    if make is None:
        raise ConfigError(
            f"'{name}' is no stage; allowed: {', '.join(_ALONE)} alone; "
            f"{', '.join(_OUTER)} before all others; {', '.join(_STAGES)}"
        )
    return _built(make, arguments, place, text)


def _built(make: Make, arguments: Sequence[str], place: Place, text: str) -> Any:
    try:
        return make(arguments, place)
    except (ValueError, IndexError, TypeError, ZeroDivisionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"'{text}' cannot be read; see `elsa run --print-config`") from error


def _quantize(arguments: Sequence[str], place: Place) -> Quantize:  # noqa: ARG001
    bits, block, levels, rounding, *more = (*arguments, *("", "", "")[len(arguments) - 1 :])
    if more:
        raise ConfigError(f"quantize takes at most 4 arguments, not {len(arguments)}")
    size = int(block) if block not in ("", "token") else 0
    known: Any = (levels or "uniform", rounding or "nearest")
    return Quantize(int(bits), size, *known)


def _sketch(arguments: Sequence[str], place: Place) -> CountSketch:
    size, shrink = (*arguments, "1")[:2] if len(arguments) < 3 else ("", "")
    if "x" in size:
        rows, buckets = (int(part) for part in size.split("x"))
        return CountSketch(rows, buckets, float(shrink))
    return CountSketch(SKETCH_ROWS, int(place.hidden / (SKETCH_ROWS * float(size))), float(shrink))


def _top(arguments: Sequence[str], place: Place) -> TopK:  # noqa: ARG001
    (kept,) = arguments
    return TopK(int(kept))


def _center(arguments: Sequence[str], place: Place) -> Center:  # noqa: ARG001
    (over,) = arguments
    known: Any = over
    return Center(known)


def _plain(made: Any) -> Make:
    def make(arguments: Sequence[str], place: Place) -> Any:  # noqa: ARG001
        () = arguments
        return made

    return make


def _fill(arguments: Sequence[str], place: Place) -> "WaterFill":
    from elsa.core.waterfill import WaterFill

    error, axes = arguments if len(arguments) > 1 else (*arguments, "0")
    if not int(axes):
        return WaterFill(float(error))
    if int(axes) < 0:
        raise ConfigError(f"fill: {axes} axes; allowed: 0 (a token is one band) or more")
    if place.directions is None:
        raise ConfigError("fill: axes are public directions, and none are known here")
    return WaterFill(float(error), place.directions.bands(place.hop, int(axes)))


def _temporal(arguments: Sequence[str], place: Place) -> "Temporal":
    from elsa.core.temporal import Temporal

    if place.hop not in ("h1", "h2"):
        raise ConfigError("temporal is for h1 and h2; take fill for gradients")
    if len(arguments) > 3:
        raise ConfigError(f"temporal takes at most 3 arguments, not {len(arguments)}")
    megabytes = int(arguments[2]) if len(arguments) == 3 else REMEMBERED
    return Temporal(_fill(arguments[:2], place), megabytes * 10**6, place.folder)


def _subspace(remainder: Coder) -> Make:
    def make(arguments: Sequence[str], place: Place) -> SubspaceCoder:
        (rank,) = arguments
        if place.directions is None:
            raise ConfigError("subspace: no public directions are known here")
        return SubspaceCoder(place.directions.first(place.hop, int(rank)), Quantize(8), remainder)

    return make


_COMPILED = ("fill", "temporal")
_OUTER = ("feedback", "subspace")
_ALONE: dict[str, Make] = {
    EXACT: _plain(Identity()),
    "fill": _fill,
    "temporal": _temporal,
}
_STAGES: dict[str, Make] = {
    "float32": _plain(Cast("float32")),
    "bfloat16": _plain(Cast("bfloat16")),
    "quantize": _quantize,
    "top": _top,
    "rotate": _plain(Rotate()),
    "center": _center,
    "sketch": _sketch,
}

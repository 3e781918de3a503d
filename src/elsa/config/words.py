"""The words of `[wire]`: the codec of each hop, read and checked before there is a tensor.

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

What depends on the model's hidden size D is checked where the codec is built.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import ValidationInfo, field_validator

from elsa.config.section import Section
from elsa.errors import ConfigError

HOPS = ("h1", "h2", "g2", "g1")
STATES = HOPS[:2]
"""The hops of hidden states."""
AXES = 64
"""Public axes of a preset's hidden states; all D where the model has fewer dimensions."""
REMEMBERED = 64
"""Megabytes that a codec remembers at each end of a hop, unless told otherwise."""
EXACT = "exact"

PRESETS: Mapping[str, Mapping[str, str]] = {
    "exact": dict.fromkeys(HOPS, EXACT),
    "balanced": dict.fromkeys(STATES, "temporal:0.15:{axes}") | dict.fromkeys(HOPS[2:], "fill:0.3"),
    "tiny": dict.fromkeys(STATES, "temporal:0.3:{axes}") | dict.fromkeys(HOPS[2:], "fill:0.5"),
    "paper": dict.fromkeys(HOPS, "sketch:2"),
}
"""The codec of each hop, by preset."""


class Wire(Section):
    """How tensors cross a cut; each hop may have a codec of its own."""

    preset: Literal["exact", "balanced", "tiny", "paper"] = "balanced"
    h1: str = ""
    h2: str = ""
    g2: str = ""
    g1: str = ""
    adapters: Literal["", "float32", "bfloat16"] = ""
    """Type in which adapters travel; "" takes the preset's."""
    folder: str = ""
    """Where codecs remember on disk; empty remembers in memory."""
    public: str = "nq-open"
    """Public texts whose states give the axes: name of an asset, or a file."""
    public_text: str = "text"
    """Column of the text in that file."""

    @field_validator("h1", "h2", "g2", "g1")
    @classmethod
    def _a_codec(cls, words: str, info: ValidationInfo) -> str:
        if words:
            read_words(words, str(info.field_name))
        return words


class Stage(NamedTuple):
    """A stage that was read.

    Attributes:
        name: of the table above.
        arguments: what it takes, those left out filled in.
        text: as it was written.
    """

    name: str
    arguments: tuple[Any, ...]
    text: str


def words_of(wire: Wire, hidden: int = AXES) -> dict[str, str]:
    """The words of each hop's codec for D = `hidden`: the preset's, or the hop's own."""
    axes = min(AXES, hidden)
    preset = {hop: words.format(axes=axes) for hop, words in PRESETS[wire.preset].items()}
    return preset | {hop: own for hop in HOPS if (own := getattr(wire, hop))}


def needs_public_text(wire: Wire) -> list[str]:
    """The hops whose codecs turn onto public axes, which are found from public text."""
    return [
        hop
        for hop, words in words_of(wire).items()
        if any(it.name == "subspace" or _axes(it) for it in read_words(words, hop))
    ]


def read_words(words: str, hop: str) -> tuple[Stage, ...]:
    """The stages that the words describe, in an order that can be.

    Args:
        words: of a codec.
        hop: "h1", "h2", "g2" or "g1".

    Raises:
        ConfigError: an unknown stage, wrong arguments, or stages that do not go together, whatever
            the model.
    """
    texts = words.split("+")
    if texts[0].partition(":")[0] in _ALONE and len(texts) == 1:
        stages = [_stage(words)]
    else:
        before, rest = _outer(texts)
        inner = [_stage(text) for text in rest]
        for place, stage in enumerate(inner):
            _check_place(stage, before[-1:], last=place == len(inner) - 1)
        stages = [_stage(text) for text in before] + inner
    for stage in stages:
        _check_hop(stage, hop)
    return tuple(stages)


def _outer(texts: Sequence[str]) -> tuple[list[str], Sequence[str]]:
    """The stages that go before all others, in their order, and the others."""
    before: list[str] = []
    for name in _OUTER:
        if texts[len(before) :] and texts[len(before)].partition(":")[0] == name:
            before.append(texts[len(before)])
    rest = texts[len(before) :]
    return before, rest or [""]


def _check_place(stage: Stage, before: Sequence[str], *, last: bool) -> None:
    if stage.name in _ALONE and before and last:
        raise ConfigError(f"'{before[0]}' goes before stages, not before '{stage.text}'")
    if stage.name in _ALONE:
        raise ConfigError(f"'{stage.text}' stands alone: no '+' before or after it")
    if stage.name in _OUTER:
        raise ConfigError(f"'{stage.text}' comes too late: {', then '.join(_OUTER)} go first, once")
    if stage.name in _CODERS and not last:
        raise ConfigError(f"'{stage.text}' is a coder and must come last")


def _check_hop(stage: Stage, hop: str) -> None:
    if hop in STATES:
        return
    if stage.name == "temporal":
        raise ConfigError("temporal is for h1 and h2; take fill for gradients")
    if stage.name == "subspace" or _axes(stage):
        raise ConfigError(f"{hop} has no public directions, only h1 and h2 have")


def _axes(stage: Stage) -> int:
    """How many axes a stage turns onto."""
    return int(stage.arguments[1]) if stage.name in ("fill", "temporal") else 0


def _stage(text: str) -> Stage:
    name, *arguments = text.strip().split(":")
    read = _READ.get(name)
    if read is None:
        raise ConfigError(
            f"'{name}' is no stage; allowed: {', '.join(_ALONE)} alone; "
            f"{', '.join(_OUTER)} before all others; {', '.join([*_CODERS, *_TRANSFORMS])}"
        )
    try:
        return Stage(name, read(arguments), text)
    except (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"'{text}' cannot be read; see `elsa run --print-config`") from error


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise ConfigError(what)


def _nothing(arguments: Sequence[str]) -> tuple[Any, ...]:
    () = arguments
    return ()


def _quantize(arguments: Sequence[str]) -> tuple[Any, ...]:
    _must(len(arguments) <= 4, f"quantize takes at most 4 arguments, not {len(arguments)}")
    texts = (*arguments, *("", "", "")[len(arguments) - 1 :])
    bits, block = int(texts[0]), int(texts[1]) if texts[1] not in ("", "token") else 0
    levels, rounding = texts[2] or "uniform", texts[3] or "nearest"
    _must(bits in (2, 3, 4, 8), f"quantize: bits = {bits}; allowed: 2, 3, 4, 8")
    _must(block >= 0, f"quantize: block = {block}; allowed: token, or a number above 0")
    known = levels in ("uniform", "gauss") and rounding in ("nearest", "stochastic")
    _must(
        known,
        f"quantize: levels = '{levels}' and rounding = '{rounding}'; allowed: uniform or gauss, "
        "and nearest or stochastic",
    )
    _must(
        levels == "uniform" or (bits < 8 and rounding == "nearest"),
        "quantize: gauss levels are for 2, 3 and 4 bits, and for nearest rounding; take uniform",
    )
    return bits, block, levels, rounding


def _top(arguments: Sequence[str]) -> tuple[Any, ...]:
    (kept,) = (int(each) for each in arguments)
    _must(kept >= 1, f"top-k: k = {kept}; allowed: 1 to the hidden size")
    return (kept,)


def _subspace(arguments: Sequence[str]) -> tuple[Any, ...]:
    (rank,) = (int(each) for each in arguments)
    _must(rank >= 1, f"subspace: {rank} directions; allowed: 1 to the hidden size")
    return (rank,)


def _center(arguments: Sequence[str]) -> tuple[Any, ...]:
    (over,) = arguments
    _must(over in ("token", "batch"), f"center: over = '{over}'; allowed: token, batch")
    return (over,)


def _sketch(arguments: Sequence[str]) -> tuple[Any, ...]:
    """Rows and buckets, or None and a ratio; then the factor."""
    size, shrink = arguments if len(arguments) > 1 else (*arguments, "1")
    factor = float(shrink)
    _must(0 < factor <= 1, f"sketch: shrink = {factor}; allowed: above 0, up to 1")
    if "x" in size:
        rows, buckets = (int(part) for part in size.split("x"))
        _must(
            min(rows, buckets) >= 1,
            f"sketch: {rows} rows of {buckets} buckets; allowed: 1 or more of each",
        )
        return rows, buckets, factor
    ratio = float(size)
    _must(0 < ratio < math.inf, f"sketch: ratio = {ratio}; allowed: above 0")
    return None, ratio, factor


def _fill(arguments: Sequence[str]) -> tuple[Any, ...]:
    error, axes = arguments if len(arguments) > 1 else (*arguments, "0")
    part, count = float(error), int(axes)
    _must(0.1 <= part < 1, f"fill: error = {part}; allowed: 0.1 to below 1")
    _must(count >= 0, f"fill: {count} axes; allowed: 0 (a token is one band) to the hidden size")
    return part, count


def _temporal(arguments: Sequence[str]) -> tuple[Any, ...]:
    _must(len(arguments) <= 3, f"temporal takes at most 3 arguments, not {len(arguments)}")
    megabytes = int(arguments[2]) if len(arguments) == 3 else REMEMBERED
    _must(megabytes >= 0, f"temporal: {megabytes} megabytes; allowed: 0 or more")
    return *_fill(arguments[:2]), megabytes


_Read = Callable[[Sequence[str]], tuple[Any, ...]]
_ALONE: Mapping[str, _Read] = {EXACT: _nothing, "fill": _fill, "temporal": _temporal}
_OUTER: Mapping[str, _Read] = {"feedback": _nothing, "subspace": _subspace}
_CODERS: Mapping[str, _Read] = {
    "float32": _nothing,
    "bfloat16": _nothing,
    "quantize": _quantize,
    "top": _top,
}
_TRANSFORMS: Mapping[str, _Read] = {"rotate": _nothing, "center": _center, "sketch": _sketch}
_READ = {**_ALONE, **_OUTER, **_CODERS, **_TRANSFORMS}

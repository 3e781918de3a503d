"""What devices hold and compute, against the whole model; and who holds which blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from elsa.report.bars import Bar, Row, bars
from elsa.report.grids import blocks
from elsa.report.history import History
from elsa.report.numbers import NOTHING, number, size
from elsa.report.parts import Figure, Part, Section, Table
from elsa.report.svg import patch

PIECES = {
    "weights": "frozen weights",
    "adapters": "adapters, gradients, moments",
    "step": "activations and wire",
    "kept": "hidden states kept",
}
MOST = 1024
"""More blocks than any model has: taken for damage."""
Split = tuple[int, int, int]


@dataclass(frozen=True)
class Reckoned:
    """What a device was reckoned to hold and do in a local step.

    Attributes:
        device: its name.
        split: p, o, q.
        memory, whole: bytes by piece; with its split, and with the whole model.
        flops, whole_flops: operations; the same.
        limit: bytes that it can hold; None where nothing is declared.
    """

    device: str
    split: Split
    memory: Mapping[str, float]
    whole: Mapping[str, float]
    flops: float
    whole_flops: float
    limit: float | None

    @property
    def share(self) -> float:
        """Its memory as a part of the whole model's."""
        return sum(self.memory.values()) / sum(self.whole.values())


def section(runs: Sequence[History]) -> Section:
    """The largest device of each split as a bar of its pieces, all on one scale."""
    found = {run.index: reckoned(run) for run in runs}
    if not any(found.values()):
        words = ["These runs did not reckon what their devices hold: real machines, or an old run."]
        return Section("memory", "Device memory and split", [Part(words=words)])
    longest = max(sum(it.whole.values()) for each in found.values() for it in each)
    parts: list[Part] = []
    for run in runs:
        devices = found[run.index]
        if not devices:
            continue
        first = not parts
        title = run.label if len(runs) > 1 else ""
        words = _words() if first else []
        parts.append(
            Part(
                title,
                words,
                _key(found) if first else (),
                _figures(devices, longest),
                _tables(devices),
            )
        )
    return Section("memory", "Device memory and split", parts)


def reckoned(run: History) -> list[Reckoned]:
    """The devices of plan.json, as far as they can be read."""
    rows = (run.record.plan or {}).get("devices")
    made = [_row(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return [row for row in made if row is not None]


def _row(row: Mapping[str, Any]) -> Reckoned | None:
    split, memory, whole = row.get("split"), _pieces(row, "memory"), _pieces(row, "whole_memory")
    flops, whole_flops = number(row.get("flops")), number(row.get("whole_flops"))
    if not (isinstance(split, list) and len(split) == 3 and all(_blocks(it) for it in split)):
        return None
    if memory is None or whole is None or flops is None or not whole_flops:
        return None
    limit = number(row.get("memory_limit"))
    name = str(row.get("device"))
    return Reckoned(name, (split[0], split[1], split[2]), memory, whole, flops, whole_flops, limit)


def _blocks(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= MOST


def _pieces(row: Mapping[str, Any], key: str) -> dict[str, float] | None:
    table = row.get(key)
    found = {it: number(table.get(it, 0.0)) for it in PIECES} if isinstance(table, dict) else {}
    values = {key: value for key, value in found.items() if value is not None and value >= 0}
    return values if len(values) == len(PIECES) and sum(values.values()) > 0 else None


def _key(found: Mapping[int, Sequence[Reckoned]]) -> list[tuple[Markup, str]]:
    held = _held([it for each in found.values() for it in each])
    places = {piece: place for place, piece in enumerate(PIECES)}
    key = [(patch(f"piece p{places[piece]}"), PIECES[piece]) for piece in held]
    return [*key, (patch("own"), "block on the device"), (patch("edges"), "block at the edge")]


def _held(devices: Sequence[Reckoned]) -> list[str]:
    """The pieces that some device has."""
    return [piece for piece in PIECES if any(it.memory[piece] > 0 for it in devices)]


def _words() -> list[str]:
    return [
        "Reckoned by the cost model from the sizes of tensors and of small measured steps, not "
        "measured on the devices. The interpreter and its libraries come on top. Of the devices "
        "that have a split the one that holds most is drawn."
    ]


def _figures(devices: Sequence[Reckoned], longest: float) -> list[Figure]:
    groups: dict[Split, list[Reckoned]] = {}
    for it in devices:
        groups.setdefault(it.split, []).append(it)
    largest = [max(own, key=lambda it: sum(it.memory.values())) for own in groups.values()]
    largest.sort(key=lambda it: sum(it.memory.values()))
    whole = max(devices, key=lambda it: sum(it.whole.values()))
    rows = [Row("Whole model on the device", [_bar(whole.whole)])]
    rows += [
        Row(f"{_name(it.split)}: {_count(groups[it.split])}, {it.share:.0%}", [_bar(it.memory)])
        for it in largest
    ]
    said = "Device memory. " + "; ".join(f"{row.name}: {row.bars[0].text}" for row in rows)
    strips = [(_name(it.split), it.split, _count(groups[it.split])) for it in largest]
    cut = "Blocks of the model, by holder"
    told = "; ".join(f"{name}, {text}" for name, _, text in strips)
    return [
        Figure("Memory of a device, by piece", bars(said, rows, longest)),
        Figure(cut, blocks(f"Splits. {told}", strips)),
    ]


def _bar(memory: Mapping[str, float]) -> Bar:
    pieces = [(memory[it], f"piece p{place}") for place, it in enumerate(PIECES)]
    hint = ", ".join(f"{title} {size(memory[it])}" for it, title in PIECES.items())
    return Bar(pieces, size(sum(memory.values())), hint)


def _name(split: Split) -> str:
    return f"p {split[0]}, o {split[1]}, q {split[2]}"


def _count(devices: Sequence[Reckoned]) -> str:
    return "1 device" if len(devices) == 1 else f"{len(devices)} devices"


def _tables(devices: Sequence[Reckoned]) -> list[Table]:
    held = _held(devices)
    columns = ("Device", "p", "o", "q", *(PIECES[piece].capitalize() for piece in held))
    columns += ("Memory", "Can hold", "Whole model", "Of it", "GFLOP a step", "Of the whole")
    rows = [
        [
            it.device,
            *map(str, it.split),
            *(size(it.memory[piece]) for piece in held),
            size(sum(it.memory.values())),
            NOTHING if it.limit is None else size(it.limit),
            size(sum(it.whole.values())),
            f"{it.share:.0%}",
            f"{it.flops / 1e9:.2f}",
            f"{it.flops / it.whole_flops:.0%}",
        ]
        for it in devices
    ]
    caption = "Every device, with its last split"
    return [Table(caption, columns, rows, frozenset(range(1, len(columns))), folded=True)]

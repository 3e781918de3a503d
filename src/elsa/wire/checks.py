"""What makes a message acceptable by itself, whoever sends it and whenever.

Both ends ask: a sender before it encodes, a receiver after it decodes. What only a role can
know (is it this peer's turn, are these its blocks) is asked there.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from numbers import Integral, Real

from elsa.core.bits import packed_size, unpack
from elsa.core.codec import Packet
from elsa.errors import FrameError
from elsa.wire.messages import (
    Activations,
    DeviceScore,
    HeadWeight,
    LabelledActivations,
    Message,
    Register,
    Row,
    Score,
)
from elsa.wire.places import Route

FRAME_LIMIT = 2**30
"""Largest frame, in bytes."""
VALUE_LIMIT = 2**28
"""Most values of a tensor, padding included: 1 GiB as float32."""
TEXT_LIMIT = 4096
"""Longest reason, in characters."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+:@-]{0,254}")
_DIMENSIONS = 8
_NAMED = ("adapters", "axes", "devices", "terms")
_LONG = ("rows", "samples", "items", "correct", "texts", "whole", "microseconds")
_MAY_BE_EMPTY = ("head", "token", "edge")
_NUMBERS = ("loss", "weight", "trust", "seconds", "ahead", "silent")
_LISTS = ("reports", "scores", "heads", "behaviours", "verdicts", "routes", "moves", "present")


def check(message: Message | Row) -> None:
    """Accept `message` or raise FrameError with the field, its value and what is allowed."""
    kind = type(message).__name__
    for field in fields(message):
        _check_field(f"{kind}.{field.name}", field.name, getattr(message, field.name))
    if isinstance(message, Activations):
        _check_batch(message.lengths, message.packet.shape)
        _check_numbers(message.numbers, len(message.lengths))
        _check_marks(message.marks, message.lengths)
    if isinstance(message, LabelledActivations):
        _check_batch(message.lengths, message.packet.shape)
        if len(message.labels) not in (len(message.lengths), sum(message.lengths)):
            raise FrameError(
                f"{kind}.labels: {len(message.labels)} for {len(message.lengths)} sequences of "
                f"{sum(message.lengths)} tokens; allowed: one for each of either"
            )
        if not all(-(2**31) <= label < 2**31 for label in message.labels):
            raise FrameError(f"{kind}.labels: one is outside of -2^31 to 2^31 - 1")
    if isinstance(message, Register):
        for name, text in message.terms.items():
            _check_text(f"Register.terms['{name}']", text)
    if isinstance(message, Score | DeviceScore):
        if message.correct > message.items:
            raise FrameError(f"{kind}.correct = {message.correct} of {message.items} items")
        if message.whole > message.texts:
            raise FrameError(f"{kind}.whole = {message.whole} of {message.texts} texts")


def _check_field(where: str, field: str, value: object) -> None:
    match value:
        case Packet():
            check_packet(where, value)
        case str() if field in ("reason", "lost"):
            _check_text(where, value)
        case str() if field in _MAY_BE_EMPTY and not value:
            pass
        case str():
            check_name(where, value)
        case Real() if field in _NUMBERS:
            _check_number(where, field, float(value))
        case Integral():
            _check_count(where, int(value), 64 if field in _LONG else 32)
        case Iterable() if field in _NAMED:  # names only; serde sees to the tensors
            check_names(where, tuple(value))
        case Sequence() if field in _LISTS:
            for row in value:
                check(row)
            check_names(where, [_name_of(row) for row in value])
        case _:
            pass


def _name_of(row: Row) -> str:
    """What a line of a list is about; no two lines are about the same."""
    match row:
        case HeadWeight():
            return row.head
        case Route():
            return row.edge
        case _:
            return row.device


def check_names(where: str, names: Sequence[str]) -> None:
    """Each a plain name, and none twice."""
    for name in names:
        check_name(where, name)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FrameError(f"{where}: '{twice}' is there more than once")


def check_name(where: str, name: str) -> None:
    """Letters, digits and a few signs, so that a name is safe in logs and file names."""
    if not _NAME.fullmatch(name):
        raise FrameError(
            f"{where}: {name[:80]!a} is not a name; allowed: 1 to 255 of A-Z a-z 0-9 _ . + : @ -, "
            "the first a letter, a digit or _"
        )


def check_shape(where: str, shape: Sequence[int]) -> None:
    """Sizes of a tensor that may be allocated on the word of a peer."""
    if len(shape) > _DIMENSIONS or any(size < 1 for size in shape):
        raise FrameError(
            f"{where}: shape {list(shape[:16])}; allowed: up to {_DIMENSIONS} sizes of at least 1"
        )
    if math.prod(shape) > VALUE_LIMIT:
        raise FrameError(f"{where}: shape {list(shape)} is over the limit of {VALUE_LIMIT} values")


def check_packet(where: str, packet: Packet) -> None:
    """A packet of hidden states or gradients [T, D]; its payload is its codec's to judge."""
    check_name(f"{where}.codec", packet.codec)
    check_name(f"{where}.dtype", packet.dtype)
    check_shape(where, packet.shape)
    if len(packet.shape) != 2:
        raise FrameError(f"{where}: shape {list(packet.shape)}; allowed: [tokens, hidden size]")


def check_size(size: int) -> None:
    """The size of a frame in bytes."""
    if size > FRAME_LIMIT:
        raise FrameError(
            f"frame of {size} bytes is over the limit of {FRAME_LIMIT}; "
            "take a smaller batch or a lower adapter rank"
        )


def _check_batch(lengths: Sequence[int], shape: Sequence[int]) -> None:
    if not lengths or min(lengths) < 1:
        raise FrameError(
            f"Activations.lengths: {list(lengths[:16])}; allowed: one or more, each at least 1"
        )
    if sum(lengths) != shape[0]:
        raise FrameError(
            f"Activations.lengths: they sum to {sum(lengths)} tokens, "
            f"but the packet holds {shape[0]}"
        )
    check_shape("Activations, padded", (len(lengths), max(lengths), shape[1]))


def _check_marks(marks: bytes, lengths: Sequence[int]) -> None:
    if not marks:
        return
    tokens = sum(lengths)
    if len(marks) != packed_size(tokens, 1) or int.from_bytes(marks, "little") >> tokens:
        raise FrameError(
            f"Activations.marks: {len(marks)} bytes; allowed: none, or a bit for each of the "
            f"{tokens} tokens and zeros after them"
        )
    chosen, at = unpack(marks, 1, tokens), 0
    for place, length in enumerate(lengths):
        if not chosen[at : at + length].any():
            raise FrameError(f"Activations.marks: none of sequence {place}; allowed: at least one")
        at += length


def _check_numbers(numbers: Sequence[int], sequences: int) -> None:
    if numbers and (len(numbers) != sequences or len(set(numbers)) != sequences):
        raise FrameError(
            f"Activations.numbers: {len(set(numbers))} different ones for {sequences} sequences; "
            "allowed: none, or one for each"
        )
    if not all(0 <= number < 2**63 for number in numbers):
        raise FrameError("Activations.numbers: one is outside of 0 to 2^63 - 1")


def _check_text(where: str, text: str) -> None:
    if len(text) > TEXT_LIMIT or text != plain(text):
        raise FrameError(
            f"{where}: {text[:80]!a}; allowed: up to {TEXT_LIMIT} printable characters"
        )


def plain(text: str) -> str:
    """`text` as a reason may be: without control characters, and cut to the limit."""
    kept = "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text)
    return kept[:TEXT_LIMIT]


def _check_number(where: str, field: str, value: float) -> None:
    if not math.isfinite(value):
        hint = "; training diverged, try a lower train.learning_rate" if field == "loss" else ""
        raise FrameError(f"{where} = {value}: not finite{hint}")
    if field in ("weight", "seconds", "silent") and value < 0:
        raise FrameError(f"{where} = {value}: cannot be negative")
    if field == "trust" and not 0 <= value <= 1:
        raise FrameError(f"{where} = {value}; allowed: 0 to 1")


def _check_count(where: str, value: int, bits: int) -> None:
    if not 0 <= value < 2**bits:
        raise FrameError(f"{where} = {value}; allowed: 0 to 2^{bits} - 1")

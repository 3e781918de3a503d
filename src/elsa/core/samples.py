"""What an end remembers of each sample: a tensor and a tag, in bounded space, oldest out first.

Values are kept in bfloat16. In memory, or, given a folder, in one file a sample, each with a
checksum: a file that is torn, changed or gone is as if it had never been.

Two stores of the same capacity that see the same puts and touches hold the same samples.
"""

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from elsa.errors import ConfigError

TAG = 8
"""Bytes of a tag."""
_CHECK = 8
_HEAD = struct.Struct(f"<{_CHECK}s{TAG}sII")
_OVERHEAD = 64
_SUFFIX = ".sample"


@dataclass(frozen=True)
class Known:
    """What is remembered of a sample.

    Attributes:
        tag: what tells this state of the sample from any other, 8 bytes.
        values: [L, D] bfloat16, L tokens of the sample.
    """

    tag: bytes
    values: Tensor


@dataclass(frozen=True)
class _Slot:
    tag: bytes
    shape: tuple[int, int]
    values: Tensor | None

    @property
    def cost(self) -> int:
        return 2 * self.shape[0] * self.shape[1] + _OVERHEAD


class SampleStore:
    """The store."""

    def __init__(self, capacity: int, folder: Path | None = None) -> None:
        """Start empty.

        Args:
            capacity: bytes to hold at most, in memory or on disk.
            folder: where to keep the values; None keeps them in memory. No one else's.
        """
        if capacity < 0:
            raise ConfigError(f"capacity of {capacity} bytes for remembered samples; allowed: >= 0")
        self.capacity = capacity
        self._folder = folder
        self._slots: OrderedDict[int, _Slot] = OrderedDict()
        self._used = 0
        self._swept = folder is None

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def used(self) -> int:
        """Bytes held."""
        return self._used

    def get(self, sample: int) -> Known | None:
        """What is remembered of a sample; does not make it younger."""
        slot = self._slots.get(sample)
        if slot is None:
            return None
        values = slot.values if self._folder is None else self._read(sample, slot)
        if values is None:
            self._forget(sample)
            return None
        return Known(slot.tag, values)

    def put(self, sample: int, tag: bytes, values: Tensor) -> None:
        """Remember values [L, D] of a sample as its youngest state; forget the oldest samples."""
        self._sweep()
        self._forget(sample)
        kept = values.to(torch.bfloat16, copy=True)
        slot = _Slot(tag, (kept.shape[0], kept.shape[1]), kept if self._folder is None else None)
        if slot.cost > self.capacity or not self._write(sample, tag, kept):
            return
        self._slots[sample] = slot
        self._used += slot.cost
        while self._used > self.capacity:
            self._forget(next(iter(self._slots)))

    def touch(self, sample: int) -> None:
        """Make a sample the youngest."""
        if sample in self._slots:
            self._slots.move_to_end(sample)

    def state(self) -> dict[str, Tensor]:
        """Samples, tags and shapes, oldest first; the values too where they are in memory."""
        slots = list(self._slots.values())
        state = {
            "samples": torch.tensor(list(self._slots), dtype=torch.int64),
            "tags": torch.tensor([list(slot.tag) for slot in slots], dtype=torch.uint8),
            "shapes": torch.tensor([slot.shape for slot in slots], dtype=torch.int64),
        }
        if self._folder is None:
            held = [slot.values.flatten() for slot in slots if slot.values is not None]
            state["values"] = torch.cat(held) if held else torch.empty(0, dtype=torch.bfloat16)
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Be as an earlier `state`, less what has been lost or changed on disk since."""
        self._slots.clear()
        self._used = 0
        shapes = [(int(rows), int(width)) for rows, width in state["shapes"].tolist()]
        tags = [bytes(tag) for tag in state["tags"].tolist()]
        held: list[Tensor | None] = [None] * len(shapes)
        if self._folder is None:
            if "values" not in state:  # it was kept on disk, and no longer is
                return
            pieces = state["values"].split_with_sizes([rows * width for rows, width in shapes])
            held = [
                piece.view(shape).to(torch.bfloat16, copy=True)
                for piece, shape in zip(pieces, shapes, strict=True)
            ]
        for sample, tag, shape, values in zip(
            state["samples"].tolist(), tags, shapes, held, strict=True
        ):
            slot = _Slot(tag, shape, values)
            self._slots[sample] = slot
            self._used += slot.cost
        while self._used > self.capacity:
            self._forget(next(iter(self._slots)))
        self._swept = self._folder is None
        self._sweep()

    def _forget(self, sample: int) -> None:
        slot = self._slots.pop(sample, None)
        if slot is None:
            return
        self._used -= slot.cost
        if self._folder is not None:
            (self._folder / f"{sample}{_SUFFIX}").unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Once, remove files of a run that is not this one."""
        if self._swept or self._folder is None:
            return
        self._swept = True
        self._folder.mkdir(parents=True, exist_ok=True)
        keep = {f"{sample}{_SUFFIX}" for sample in self._slots}
        for path in self._folder.glob(f"*{_SUFFIX}"):
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def _write(self, sample: int, tag: bytes, values: Tensor) -> bool:
        if self._folder is None:
            return True
        raw = values.view(-1).view(torch.uint8).numpy().tobytes()
        head = _HEAD.pack(_check(tag, raw), tag, *values.shape)
        try:
            (self._folder / f"{sample}{_SUFFIX}").write_bytes(head + raw)
        except OSError:  # a full disk costs bytes on the wire, not the run
            return False
        return True

    def _read(self, sample: int, slot: _Slot) -> Tensor | None:
        assert self._folder is not None
        try:
            data = (self._folder / f"{sample}{_SUFFIX}").read_bytes()
            check, tag, *shape = _HEAD.unpack(data[: _HEAD.size])
        except (OSError, struct.error):
            return None
        raw = data[_HEAD.size :]
        whole = len(raw) == 2 * slot.shape[0] * slot.shape[1] and check == _check(tag, raw)
        if not whole or tag != slot.tag or tuple(shape) != slot.shape:
            return None
        return torch.frombuffer(bytearray(raw), dtype=torch.bfloat16).view(slot.shape)


def _check(tag: bytes, raw: bytes) -> bytes:
    return hashlib.blake2b(tag + raw, digest_size=_CHECK).digest()

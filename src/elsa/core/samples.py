"""What an end remembers of each sample: a tensor and a tag, in bounded space, oldest out first.

Values are kept in bfloat16. In memory, or, given a folder, in one file a sample, each with a
checksum: a file that is torn, changed or gone is as if it had never been.

Two stores of the same capacity that see the same puts and touches hold the same samples.
"""

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from elsa.core.codec import Frame
from elsa.errors import CodecError, ConfigError

TAG = 8
"""Bytes of a tag."""
_CHECK = 8
_HEAD = struct.Struct(f"<{_CHECK}s{TAG}sII")
_OVERHEAD = 64
_SUFFIX = ".sample"


class Known(NamedTuple):
    """What is remembered of a sample.

    Attributes:
        tag: what tells this state of the sample from any other, 8 bytes.
        shape: [L, D], L tokens of the sample.
        raw: the values, as bytes of bfloat16.
    """

    tag: bytes
    shape: tuple[int, int]
    raw: bytes

    @classmethod
    def of(cls, tag: bytes, values: Tensor) -> "Known":
        """Values [L, D] of a sample, rounded to bfloat16."""
        held = values.detach().to(torch.bfloat16).contiguous()
        raw = held.view(-1).view(torch.uint8).numpy().tobytes()
        return cls(tag, (values.shape[0], values.shape[1]), raw)

    @property
    def values(self) -> Tensor:
        """[L, D] bfloat16, a copy."""
        return values_of([self.raw], self.shape)

    @property
    def cost(self) -> int:
        """Bytes that it counts for."""
        length, hidden = self.shape
        return 2 * length * hidden + _OVERHEAD


def values_of(raw: Sequence[bytes], shape: tuple[int, int]) -> Tensor:
    """A tensor [T, D] bfloat16 of its pieces, a copy."""
    joined = bytearray().join(raw)
    if not joined:
        return torch.empty(shape, dtype=torch.bfloat16)
    return torch.frombuffer(joined, dtype=torch.bfloat16).view(shape)


def check_samples(frame: Frame, codec: str) -> None:
    """Refuse a frame without a number for each sequence, or with one twice; raises CodecError."""
    samples = frame.samples
    if len(samples) != len(frame.lengths) or len(set(samples)) != len(samples):
        raise CodecError(
            f"{codec}: {len(set(samples))} different samples for {len(frame.lengths)} sequences; "
            "each needs a number of its own"
        )
    if samples and not (min(samples) >= 0 and max(samples) < 2**63):
        raise CodecError(f"{codec}: a sample's number is outside of 0 to 2^63 - 1")


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
        self._slots: OrderedDict[int, Known] = OrderedDict()
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
        known = self._slots.get(sample)
        if known is None or self._folder is None:
            return known
        raw = self._read(sample, known)
        if raw is None:
            self._forget(sample)
            return None
        return known._replace(raw=raw)

    def get_all(self, samples: Sequence[int]) -> list[Known | None]:
        """`get` of each."""
        if self._folder is None:
            return [self._slots.get(sample) for sample in samples]
        return [self.get(sample) for sample in samples]

    def put_all(self, samples: Sequence[int], states: Sequence[Known | None]) -> None:
        """`put` of each in turn; `touch` where there is no new state."""
        if self._folder is not None:
            for sample, known in zip(samples, states, strict=True):
                if known is None:
                    self.touch(sample)
                else:
                    self.put(sample, known)
            return
        # The same without a call a sample, of which a training step has a hundred.
        slots, used, most = self._slots, self._used, self.capacity
        for sample, known in zip(samples, states, strict=True):
            if known is None:
                if sample in slots:
                    slots.move_to_end(sample)
                continue
            before = slots.pop(sample, None)
            if before is not None:
                used -= len(before.raw) + _OVERHEAD
            cost = len(known.raw) + _OVERHEAD
            if cost > most:
                continue
            slots[sample] = known
            used += cost
            while used > most:
                used -= len(slots.popitem(last=False)[1].raw) + _OVERHEAD
        self._used = used

    def put(self, sample: int, known: Known) -> None:
        """Remember a sample's state as the youngest; forget the oldest samples."""
        if not self._swept:
            self._sweep()
        self._forget(sample)
        cost = known.cost
        if cost > self.capacity:
            return
        if self._folder is not None:
            if not self._write(self._folder, sample, known):
                return
            known = known._replace(raw=b"")
        self._slots[sample] = known
        self._used += cost
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
            total = sum(rows * width for _, (rows, width), _ in slots)
            state["values"] = values_of([it.raw for it in slots], (1, total))[0]
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Be as an earlier `state`, less what has been lost or changed on disk since."""
        self._slots.clear()
        self._used = 0
        shapes = [(int(rows), int(width)) for rows, width in state["shapes"].tolist()]
        tags = [bytes(tag) for tag in state["tags"].tolist()]
        held = [b""] * len(shapes)
        if self._folder is None:
            if "values" not in state:  # it was kept on disk, and no longer is
                return
            pieces = state["values"].split_with_sizes([rows * width for rows, width in shapes])
            held = [Known.of(b"", piece[None]).raw for piece in pieces]
        for sample, tag, shape, raw in zip(
            state["samples"].tolist(), tags, shapes, held, strict=True
        ):
            self._slots[sample] = Known(tag, shape, raw)
            self._used += self._slots[sample].cost
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

    def _write(self, folder: Path, sample: int, known: Known) -> bool:
        head = _HEAD.pack(_check(known.tag, known.raw), known.tag, *known.shape)
        try:
            (folder / f"{sample}{_SUFFIX}").write_bytes(head + known.raw)
        except OSError:  # a full disk costs bytes on the wire, not the run
            return False
        return True

    def _read(self, sample: int, known: Known) -> bytes | None:
        assert self._folder is not None
        try:
            data = (self._folder / f"{sample}{_SUFFIX}").read_bytes()
            check, tag, *shape = _HEAD.unpack(data[: _HEAD.size])
        except (OSError, struct.error):
            return None
        raw = data[_HEAD.size :]
        whole = len(raw) == known.cost - _OVERHEAD and check == _check(tag, raw)
        return raw if whole and (tag, tuple(shape)) == (known.tag, known.shape) else None


def _check(tag: bytes, raw: bytes) -> bytes:
    return hashlib.blake2b(tag + raw, digest_size=_CHECK).digest()

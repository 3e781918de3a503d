"""Tensors of many owners in one file: what a thousand devices keep does not fit in memory together.

An owner's tensors are written and read as a whole, one behind the other. The file has no name and
is gone with the process; a copy of it is part of a checkpoint, with the index that tells what lies
where.
"""

import hashlib
import math
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from elsa.errors import CheckpointError, RunError

Layout = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, dtype and shape of each tensor."""
_CHUNK = 2**20
_WORD = 8


class Shelf(MutableMapping[str, Mapping[str, Tensor]]):
    """By owner, tensors by name; those that are given out are copies.

    Attributes:
        fresh: owners whose tensors were set since this was last cleared.
    """

    def __init__(self, folder: Path) -> None:
        """Start empty, with a file in `folder`.

        Raises:
            RunError: the folder cannot be written to.
        """
        self._folder = folder
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise RunError(f"{folder}: cannot be written: {error.strerror}") from error
        weakref.finalize(self, self._file.close)
        self._places: dict[str, tuple[int, int, int]] = {}
        """By owner, where its tensors begin, their room in bytes, the number of their layout."""
        self._numbers: dict[Layout, int] = {}
        self._layouts: list[Layout] = []
        self._end = 0
        self.fresh: set[str] = set()

    def __setitem__(self, owner: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep these instead of what was kept; raises RunError if the disk is full."""
        held = {name: value.detach().contiguous() for name, value in tensors.items()}
        layout = tuple((name, _dtype(it), tuple(it.shape)) for name, it in held.items())
        self.lay(owner, layout, b"".join(_bytes(it) for it in held.values()))

    def lay(self, owner: str, layout: Layout, data: bytes) -> None:
        """Keep what `lift` gave, of any shelf; raises RunError if the disk is full."""
        number = self._numbers.setdefault(layout, len(self._layouts))
        if number == len(self._layouts):
            self._layouts.append(layout)
        place, room, _ = self._places.get(owner, (0, 0, 0))
        if room < len(data):
            place, room = self._end, len(data)
            self._end += room
        self._write(data, place)
        self._places[owner] = place, room, number
        self.fresh.add(owner)

    def lift(self, owner: str) -> tuple[Layout, bytes]:
        """The tensors of an owner as they lie; raises KeyError where nothing is kept."""
        place, _, number = self._places[owner]
        layout = self._layouts[number]
        return layout, os.pread(self._file.fileno(), sum(map(_size, layout)), place)

    def __getitem__(self, owner: str) -> dict[str, Tensor]:
        """What is kept; raises KeyError where nothing is."""
        layout, raw = self.lift(owner)
        data, begin = bytearray(raw), 0
        found: dict[str, Tensor] = {}
        for part in layout:
            name, dtype, shape = part
            kind, count = getattr(torch, dtype), math.prod(shape)
            if count:
                values = torch.frombuffer(data, dtype=kind, count=count, offset=begin)
            else:
                values = torch.empty(0, dtype=kind)
            found[name] = values.view(shape)
            begin += _size(part)
        return found

    def __delitem__(self, owner: str) -> None:
        """Keep nothing of an owner; its room stays unused."""
        del self._places[owner]
        self.fresh.discard(owner)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def below(self, prefix: str) -> MutableMapping[str, Mapping[str, Tensor]]:
        """The owners whose names begin with `prefix`, under the rest of their names."""
        return _Part(self, prefix)

    def index(self) -> dict[str, Any]:
        """What lies where, as JSON."""
        return {"layouts": self._layouts, "places": self._places}

    def copy_to(self, path: Path) -> str:
        """Write the file to `path`; its SHA-256. Raises OSError."""
        digest = hashlib.sha256()
        with path.open("wb") as copy:
            for begin in range(0, self._end, _CHUNK):
                data = os.pread(self._file.fileno(), min(_CHUNK, self._end - begin), begin)
                digest.update(data)
                copy.write(data)
        return digest.hexdigest()

    def restore(self, path: Path, index: Mapping[str, Any]) -> None:
        """Be as the shelf whose copy and index these are.

        Raises:
            CheckpointError: the copy cannot be read, or is not as long as the index says.
            RunError: the disk is full.
        """
        self._layouts = [
            tuple((name, dtype, tuple(shape)) for name, dtype, shape in layout)
            for layout in index["layouts"]
        ]
        self._numbers = {layout: number for number, layout in enumerate(self._layouts)}
        self._places = {owner: tuple(place) for owner, place in index["places"].items()}
        self._end = 0
        try:
            with path.open("rb") as copy:
                while data := copy.read(_CHUNK):
                    self._write(data, self._end)
                    self._end += len(data)
        except OSError as error:
            raise CheckpointError(f"{path.name}: cannot be read: {error.strerror}") from error
        if any(at + room > self._end for at, room, _ in self._places.values()):
            raise CheckpointError(f"{path.name}: is shorter than its index says")

    def _write(self, data: bytes, place: int) -> None:
        left = memoryview(data)
        try:
            while left:  # a disk that is nearly full takes a part
                done = os.pwrite(self._file.fileno(), left, place)
                left, place = left[done:], place + done
        except OSError as error:
            raise RunError(f"{self._folder}: cannot be written: {error.strerror}") from error


class _Part(MutableMapping[str, Mapping[str, Tensor]]):
    def __init__(self, shelf: Shelf, prefix: str) -> None:
        self._shelf = shelf
        self._prefix = prefix

    def __setitem__(self, owner: str, tensors: Mapping[str, Tensor]) -> None:
        self._shelf[self._prefix + owner] = tensors

    def __getitem__(self, owner: str) -> Mapping[str, Tensor]:
        return self._shelf[self._prefix + owner]

    def __delitem__(self, owner: str) -> None:
        del self._shelf[self._prefix + owner]

    def __iter__(self) -> Iterator[str]:
        cut = len(self._prefix)
        return (name[cut:] for name in self._shelf if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _size(part: tuple[str, str, tuple[int, ...]]) -> int:
    """Bytes of a tensor, in whole words, so that the next one lies where its type may lie."""
    _, dtype, shape = part
    size: int = math.prod(shape) * getattr(torch, dtype).itemsize
    return -(-size // _WORD) * _WORD


def _bytes(tensor: Tensor) -> bytes:
    raw = tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return raw + bytes(-len(raw) % _WORD)

"""Named tensors out of safetensors files, each read when it is first asked for."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from elsa.errors import MissingTensorError, ModelError
from elsa.model.accelerator import CPU
from elsa.model.tables import Store, Table, stored

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BLOCK = 2**21
"""Numbers that are read at a time."""
_OLD_SPELLINGS = (
    ("LayerNorm.weight", "LayerNorm.gamma"),
    ("LayerNorm.bias", "LayerNorm.beta"),
    ("lm_head.weight", "embed_out.weight"),
)


class Weights:
    """The tensors of a model directory, one safetensors file or several with an index.

    A tensor is copied out of its file on first use and kept, so that segments which overlap, and
    embeddings tied to the head, share one storage. Nothing else of a file is read but its header.

    Attributes:
        directory: where the files lie.
        dtype: floating tensors are held in it.
        device: where they lie.
        names_read: names, as in the files, of the tensors read so far, in order.
        bytes_read: their size in the files, in bytes.
    """

    def __init__(
        self, directory: Path, prefix: str, dtype: torch.dtype, device: torch.device = CPU
    ) -> None:
        """Find the files and the names in them.

        Args:
            directory: the model directory.
            prefix: what names of the base model may start with ("bert", "model", ...).
            dtype: floating tensors are converted to it.
            device: where they are put.

        Raises:
            ModelError: there are no safetensors files, or a header cannot be read.
        """
        self.directory = directory
        self.dtype = dtype
        self.device = device
        self.names_read: list[str] = []
        self.bytes_read = 0
        self._prefix = f"{prefix}."
        self._files = _locate(directory)
        self._held: dict[str, Tensor] = {}
        self._tables: dict[str, Table] = {}

    def read(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """The tensors of these names, in their canonical form, with or without the base prefix.

        Args:
            shapes: name -> the shape it must have.

        Raises:
            MissingTensorError: one is absent, its file is absent, or its shape is another.
            ModelError: a file cannot be read.
        """
        spelled = {name: self._find(name, shape) for name, shape in shapes.items()}
        absent = dict.fromkeys(name for name in spelled.values() if name not in self._held)
        for file in sorted({self._files[name] for name in absent}):
            self._load(file, [name for name in absent if self._files[name] == file])
        return {
            name: self._checked(name, spelling, shapes[name]) for name, spelling in spelled.items()
        }

    def table(self, name: str, shape: Sequence[int], store: Store) -> Table:
        """A matrix of this name in few bits, read row by row; raises as `read` does."""
        spelling = self._find(name, shape)
        if spelling not in self._tables:
            path = self._present(self._files[spelling], spelling)
            try:
                found, _ = self._begun(path, spelling)
                self._check_shape(found, name, spelling, shape)
                blocks = partial(_rows, path, spelling, found)
                self._tables[spelling] = stored(found, blocks, store).on(self.device)
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{path}: cannot be read ({error}); download it again") from error
        return self._tables[spelling]

    def _spelling(self, name: str) -> str | None:
        bare = name.removeprefix(self._prefix)
        for candidate in (bare, self._prefix + bare):
            if candidate in self._files:
                return candidate
            for new, old in _OLD_SPELLINGS:
                if candidate.endswith(new):
                    ancient = candidate.removesuffix(new) + old
                    if ancient in self._files:
                        return ancient
        return None

    def _find(self, name: str, shape: Sequence[int]) -> str:
        spelling = self._spelling(name)
        if spelling is None:
            raise MissingTensorError(
                f"{self.directory}: no tensor '{name}' (nor '{self._prefix}{name}') of shape "
                f"{list(shape)} in {', '.join(sorted(set(self._files.values())))}; the files are "
                "not whole or belong to another model than config.json describes"
            )
        return spelling

    def _load(self, file: str, names: Sequence[str]) -> None:
        path = self._present(file, names[0])
        try:
            for name in names:
                self._held[name] = self._copied(path, name)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: cannot be read ({error}); download it again") from error

    def _present(self, file: str, name: str) -> Path:
        path = self.directory / file
        if not path.is_file():
            raise MissingTensorError(
                f"{path}: missing, but {INDEX} says that it holds '{name}'; "
                "download the model again"
            )
        return path

    def _copied(self, path: Path, name: str) -> Tensor:
        """A tensor in a copy of its own, so that a file that changes cannot reach into a model."""
        shape, first = self._begun(path, name)
        dtype = self.dtype if first.is_floating_point() else first.dtype
        if not shape:
            return first.to(self.device, dtype, copy=True)
        held, start = torch.empty(shape, dtype=dtype, device=self.device), 0
        for rows in _rows(path, name, shape):
            held[start : start + len(rows)] = rows
            start += len(rows)
        return held

    def _begun(self, path: Path, name: str) -> tuple[tuple[int, ...], Tensor]:
        """Shape of a tensor that is about to be read, and the first of its rows."""
        with safe_open(path, framework="pt") as tensors:
            shape = tuple(tensors.get_slice(name).get_shape())
            first: Tensor = tensors.get_slice(name)[:1] if shape else tensors.get_tensor(name)
            first = first.clone()
        self.names_read.append(name)
        self.bytes_read += math.prod(shape) * first.element_size()
        return shape, first

    def _checked(self, name: str, spelling: str, shape: Sequence[int]) -> Tensor:
        tensor = self._held[spelling]
        self._check_shape(tensor.shape, name, spelling, shape)
        return tensor

    def _check_shape(
        self, found: Sequence[int], name: str, spelling: str, shape: Sequence[int]
    ) -> None:
        if tuple(found) != tuple(shape):
            raise MissingTensorError(
                f"{self.directory / self._files[spelling]}: tensor '{spelling}' has shape "
                f"{list(found)} where config.json asks for {list(shape)} ('{name}')"
            )


def _rows(path: Path, name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    """All rows of a tensor, some at a time.

    The library maps the file, and what was read of a mapping stays in memory until it is closed.
    So the file is opened anew for every few rows, and no tensor is there twice.
    """
    step = max(BLOCK // max(math.prod(shape[1:]), 1), 1)
    for start in range(0, shape[0], step):
        with safe_open(path, framework="pt") as tensors:
            yield tensors.get_slice(name)[start : start + step]


def _locate(directory: Path) -> dict[str, str]:
    """Tensor name -> file name."""
    index = directory / INDEX
    try:
        if index.is_file():
            found: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return found
        if (directory / SINGLE).is_file():
            with safe_open(directory / SINGLE, framework="pt") as tensors:
                return dict.fromkeys(tensors.keys(), SINGLE)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{directory}: weights cannot be read ({error})") from error
    pickled = sorted(path.name for path in directory.glob("*.bin"))
    hint = (
        f"{', '.join(pickled)} can run code when loaded and is not opened; convert it with "
        "save_pretrained(..., safe_serialization=True)"
        if pickled
        else "put model.safetensors there"
    )
    raise ModelError(f"{directory}: no {SINGLE} and no {INDEX}; {hint}")

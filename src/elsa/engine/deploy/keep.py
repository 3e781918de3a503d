"""What a device or an edge keeps on disk, so that it goes on with it when it is started again.

One safetensors file a party: tensors by name, and numbers in its metadata. It is replaced as a
whole. A file of another federation or one that cannot be read is left aside, with a word in the
log; a disk that is full costs no round.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from elsa.errors import ConfigError, RunError
from elsa.record.atomic import sweep, write_atomically

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """What was kept; empty where nothing was.

    Attributes:
        tensors: by name.
        numbers: by name.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)


class Keeper:
    """The file of one party."""

    def __init__(self, folder: Path | None, party: str, terms: Mapping[str, str]) -> None:
        """Set up.

        Args:
            folder: where it lies; None keeps nothing.
            party: whose it is.
            terms: settings that what is kept depends on.

        Raises:
            ConfigError: the folder cannot be made.
        """
        self._path: Path | None = None
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"--state {folder}: {error.strerror}") from error
            sweep(folder)
            self._path = folder / f"{party}.safetensors"
        words = json.dumps([party, sorted(terms.items())])
        self._identity = hashlib.sha256(words.encode()).hexdigest()

    def load(self) -> Kept:
        """What was kept last."""
        if self._path is None or not self._path.exists():
            return Kept()
        try:
            data = self._path.read_bytes()
            tensors = safetensors.torch.load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            said = json.loads(header["__metadata__"]["elsa"])
            if said["identity"] != self._identity:
                raise ValueError("of another party, or kept with other settings")
            if said["values"] != _digest(data):
                raise ValueError("damaged")
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s is not used: %s", self._path, error)
            return Kept()
        return Kept(tensors, said["numbers"])

    def save(self, kept: Kept) -> None:
        """Keep this instead of what was kept before."""
        if self._path is None:
            return
        tensors = {name: value.detach().clone() for name, value in kept.tensors.items()}
        said = {
            "identity": self._identity,
            "values": _digest(safetensors.torch.save(tensors)),
            "numbers": dict(kept.numbers),
        }
        try:
            write_atomically(
                self._path, safetensors.torch.save(tensors, {"elsa": json.dumps(said)})
            )
        except RunError as error:
            _log.warning("%s; what was kept before stays", error)


def _digest(data: bytes) -> str:
    """SHA-256 of the values in a safetensors file, whatever its metadata say."""
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()

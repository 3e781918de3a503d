"""The state after a round, from which a run goes on.

A checkpoint is one safetensors file: tensors, and the rest as JSON in its metadata. Its name
holds the round and the first 64 bits of its SHA-256, so a file that is not whole, or was damaged
later, is known and never used; the one before it is. What lies on a shelf (`record.shelf`) is
copied to a file beside it, of the same name, whose SHA-256 is in the metadata. The last two
checkpoints are kept.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from elsa.errors import CheckpointError
from elsa.record.atomic import partial_path, publish, sweep
from elsa.record.directory import RunDirectory
from elsa.record.manifest import read_manifest
from elsa.record.shelf import Shelf

NAME = re.compile(r"round-(\d+)-([0-9a-f]{16})\.safetensors")
_BESIDE = ".shelf"


@dataclass(frozen=True)
class Checkpoint:
    """A state to go on from.

    Attributes:
        round: global round it was saved after, from 0.
        tensors: on the CPU, by the names they were saved under.
        state: the rest.
        offsets: of the run's logs at that moment; for `RunDirectory.rewind`.
        skipped: newer files that could not be used, each with the reason.
        shelf: the file beside it, and its index; None where there is none.
    """

    round: int
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]
    offsets: Mapping[str, int]
    skipped: tuple[str, ...] = ()
    shelf: tuple[Path, Mapping[str, Any]] | None = None

    def fill(self, shelf: Shelf) -> None:
        """Bring a shelf back to what it held; raises CheckpointError if there is no such file."""
        if self.shelf is None:
            raise CheckpointError(f"the checkpoint of round {self.round}: holds no moments")
        shelf.restore(*self.shelf)


def save_checkpoint(
    run: RunDirectory,
    round_: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    shelf: Shelf | None = None,
) -> Path:
    """Save the state after a round, with how far the run's logs reach, and drop older ones.

    Killed at any moment, either this checkpoint is there whole or the one before it still is.

    Args:
        run: the directory it belongs to.
        round_: the global round that ended, from 0.
        tensors: of any shape and dtype, by any name; a tensor may be there under two names and
            several may lie in one buffer, but not overlap in part.
        state: JSON: text, numbers, true, false, None, and lists and tables of them.
        shelf: what is kept besides.

    Returns:
        The file.

    Raises:
        CheckpointError: it cannot be written; older ones are still there.
    """
    rest = {"run": run.manifest.digest(), "offsets": run.offsets(), "state": state}
    # A folder, because safetensors leaves files of its own beside the one it writes when killed.
    folder = partial_path(run.checkpoints / "new")
    try:
        folder.mkdir(exist_ok=True)
        partial, beside = folder / "new.safetensors", folder / f"new{_BESIDE}"
        if shelf is not None:
            rest["shelf"] = {"sha256": shelf.copy_to(beside), "index": shelf.index()}
        metadata = {"elsa": json.dumps(rest)}
        safetensors.torch.save_file(_separate(tensors), partial, metadata)
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        path = run.checkpoints / f"round-{round_:06d}-{digest[:16]}.safetensors"
        if shelf is not None:
            publish(beside, path.with_suffix(_BESIDE))
        publish(partial, path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{run.checkpoints}: cannot save a checkpoint: {error}") from error
    finally:
        sweep(run.checkpoints)
    _keep_two(run.checkpoints, path)
    return path


def load_checkpoint(run: Path) -> Checkpoint:
    """Load the newest whole checkpoint of the run directory `run`.

    Raises:
        RunError: `run` is no run directory.
        CheckpointError: there is no whole checkpoint of this run.
    """
    identity = read_manifest(run).digest()
    skipped: list[str] = []
    for path in _newest_first(run / "checkpoint"):
        try:
            return _load(path, identity, tuple(skipped))
        except CheckpointError as error:
            skipped.append(str(error))
    if skipped:
        raise CheckpointError("\n  ".join([f"{run}: no checkpoint can be used:", *skipped]))
    raise CheckpointError(f"{run}: has no checkpoint yet; start it again with `elsa run`")


def _load(path: Path, identity: str, skipped: tuple[str, ...]) -> Checkpoint:
    round_, digest = _parts(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name}: cannot be read: {error.strerror}") from error
    if not hashlib.sha256(data).hexdigest().startswith(digest):
        raise CheckpointError(f"{path.name}: is damaged: its SHA-256 is not that of its name")
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    rest = json.loads(header["__metadata__"]["elsa"])
    if rest["run"] != identity:
        raise CheckpointError(f"{path.name}: belongs to another run")
    shelf = rest.get("shelf")
    return Checkpoint(
        round=round_,
        tensors=safetensors.torch.load(data),
        state=rest["state"],
        offsets=rest["offsets"],
        skipped=skipped,
        shelf=(_beside(path, shelf["sha256"]), shelf["index"]) if shelf else None,
    )


def _beside(path: Path, digest: str) -> Path:
    """The whole file beside a checkpoint."""
    beside = path.with_suffix(_BESIDE)
    try:
        with beside.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{beside.name}: cannot be read: {error.strerror}") from error
    if found != digest:
        raise CheckpointError(f"{beside.name}: is damaged: its SHA-256 is not the checkpoint's")
    return beside


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make every tensor contiguous and none share memory, as the format wants."""
    separate: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, given in tensors.items():
        tensor = given.detach().contiguous()
        separate[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return separate


def _keep_two(folder: Path, newest: Path) -> None:
    older = [path for path in _newest_first(folder) if _parts(path)[0] < _parts(newest)[0]]
    for path in _newest_first(folder):
        if path != newest and path not in older[:1]:
            path.unlink(missing_ok=True)
    for path in folder.glob(f"*{_BESIDE}"):  # also those of a process killed between the two
        if not path.with_suffix(".safetensors").exists():
            path.unlink(missing_ok=True)


def _newest_first(folder: Path) -> Iterator[Path]:
    paths = [path for path in folder.glob("round-*") if NAME.fullmatch(path.name)]
    yield from sorted(paths, key=lambda path: _parts(path)[0], reverse=True)


def _parts(path: Path) -> tuple[int, str]:
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), match[2]

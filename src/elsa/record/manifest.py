"""manifest.json: what a run was started with; written once, never changed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from elsa.errors import RunError

FORMAT = 2
"""Version of everything in a run directory; one of another version is refused."""


@dataclass(frozen=True)
class Manifest:
    """What a run was started with.

    Attributes:
        name: of the run.
        created: seconds since 1970, wall clock.
        seed: all randomness of the run comes from it.
        config: every setting, as nested tables.
        config_toml: the same as a TOML file.
        versions: of python, elsa and the packages that decide the result.
        machine: facts about the machine, such as processor and number of cores.
        model: SHA-256 of each file of the model, by file name.
        data: SHA-256 of each file of the data, by file name.
        format: version of the run directory.
    """

    name: str
    created: float
    seed: int
    config: Mapping[str, Any]
    config_toml: str
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    model: Mapping[str, str]
    data: Mapping[str, str]
    format: int = FORMAT

    def to_json(self) -> bytes:
        """Return the text of manifest.json."""
        return json.dumps(asdict(self), indent=2).encode() + b"\n"

    def digest(self) -> str:
        """Return what tells this run from every other; a checkpoint carries it.

        Take it of a manifest that was read: reading may turn 1 into 1.0.
        """
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


MANIFEST = TypeAdapter(Manifest)


def read_manifest(run: Path) -> Manifest:
    """Read the manifest of the run directory `run`.

    Raises:
        RunError: it is no run directory, or one of another version, or the file is damaged.
    """
    path = run / "manifest.json"
    try:
        fields = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        what = "is no run directory: it has no manifest.json" if run.is_dir() else "does not exist"
        raise RunError(f"{run}: {what}; give the folder of a run, such as runs/NAME") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: is damaged: {error}") from error
    version = fields.get("format") if isinstance(fields, dict) else None
    if version != FORMAT:
        raise RunError(
            f"{run}: was written in format {version}, this elsa reads format {FORMAT}; "
            "use the elsa it was written with"
        )
    try:
        return MANIFEST.validate_python(fields)
    except ValidationError as error:
        names = ", ".join(".".join(map(str, each["loc"])) for each in error.errors())
        raise RunError(f"{path}: is damaged: missing or of the wrong type: {names}") from None

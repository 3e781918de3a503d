"""What is compared: cells, each one run of a method with a seed, and where they lie.

OUT/base.toml                   what all cells have in common
OUT/cells/METHOD/seed-N/        a run directory
OUT/tuning/METHOD/rate-R/       a run directory, of the seed that learning rates are chosen on
OUT/plans/METHOD.json           what `elsa plan` says of the method
OUT/compare.json, .csv, .svg    the results
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from elsa.config.load import load_config
from elsa.config.methods import METHODS
from elsa.config.printing import dump_toml
from elsa.config.schema import Config
from elsa.config.spelling import nearest
from elsa.errors import ConfigError, RunError
from elsa.record.atomic import write_atomically
from elsa.record.directory import read_summary
from elsa.record.manifest import read_manifest

BASE = "base.toml"


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        method: its name.
        seed: of the run.
        rate: learning rate; None takes that of the config.
        tuning: whether it is there to choose the rate.
    """

    method: str
    seed: int
    rate: float | None = None
    tuning: bool = False

    @property
    def name(self) -> str:
        """METHOD/seed-N, or METHOD/rate-R."""
        return f"{self.method}/" + (f"rate-{self.rate:g}" if self.tuning else f"seed-{self.seed}")

    def folder(self, out: Path) -> Path:
        """Its run directory."""
        return out / ("tuning" if self.tuning else "cells") / self.name

    def settings(self, threads: int) -> list[str]:
        """What it changes in the base config."""
        found = [
            f"run.method={self.method}",
            f"run.seed={self.seed}",
            f"run.name={self.name.replace('/', '-')}",
            f"run.threads={threads}",
        ]
        return found if self.rate is None else [*found, f"train.learning_rate={self.rate!r}"]


def check_methods(names: Sequence[str]) -> None:
    """Raise ConfigError for a method that there is not, or one that is named twice."""
    for name in names:
        if name not in METHODS:
            guess = nearest(name, METHODS)
            hint = f" (did you mean {guess}?)" if guess else ""
            raise ConfigError(
                f"'{name}' is no method{hint}; there are {', '.join(METHODS)}; "
                "`elsa compare --list` says what they are"
            )
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"the method {twice[0]} is named twice")


def prepare_base(config: Config, out: Path) -> Path:
    """Write the config that all cells start from, or see that it is the one that is there.

    Raises:
        ConfigError: it names a method itself.
        RunError: the folder holds a comparison of another config, or something else.
    """
    if config.run.method:
        raise ConfigError(
            f"run.method = '{config.run.method}': a comparison sets it; leave it out, and name it "
            "among the methods"
        )
    path, text = out / BASE, dump_toml(_unthreaded(config)).encode()
    if path.is_file():
        if path.read_bytes() != text:
            changed = _changed(path.read_text(encoding="utf-8"), text.decode())
            raise RunError(
                f"{out}: holds a comparison of another config ({changed}); name another folder "
                "with --out, or delete this one"
            )
        return path
    try:
        if out.is_dir() and any(out.iterdir()):
            raise RunError(f"{out}: is not empty and no comparison; name another folder with --out")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: cannot be made: {error.strerror}") from error
    write_atomically(path, text)
    return path


def config_of(cell: Cell, base: Path) -> Config:
    """The cell's whole config; raises ConfigError if the method cannot take the base."""
    return load_config(base, cell.settings(0))


def finished(cell: Cell, base: Path, out: Path) -> bool:
    """Whether the cell's run ended.

    Raises:
        RunError: its folder holds a run with other settings.
    """
    folder = cell.folder(out)
    if not (folder / "manifest.json").is_file():
        return False
    held = Config.model_validate_json(json.dumps(read_manifest(folder).config))
    if _unthreaded(held) != config_of(cell, base):
        was, now = dump_toml(_unthreaded(held)), dump_toml(config_of(cell, base))
        raise RunError(
            f"{folder}: was made with other settings ({_changed(was, now)}); delete it, or name "
            "another folder with --out"
        )
    return read_summary(folder) is not None


def _unthreaded(config: Config) -> Config:
    return config.model_copy(update={"run": config.run.model_copy(update={"threads": 0})})


def _changed(was: str, now: str) -> str:
    """The first lines that differ."""
    pairs = zip(was.splitlines(), now.splitlines(), strict=False)
    found = [f"{then} before, {new} now" for then, new in pairs if then != new]
    return "; ".join(found[:3]) or "more or fewer keys"

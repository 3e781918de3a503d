"""What a result depends on besides the config: versions, machine, model and data."""

import platform
import time
from collections.abc import Mapping
from importlib.metadata import version

from elsa.config.printing import dump_toml
from elsa.config.schema import Config
from elsa.engine.machine import machine_facts
from elsa.errors import RunError
from elsa.record.manifest import Manifest

_PACKAGES = ("elsa", "torch", "transformers", "peft", "safetensors", "numpy", "flwr-datasets")


def new_manifest(config: Config, model: Mapping[str, str], data: Mapping[str, str]) -> Manifest:
    """The manifest of a run that starts now; `model` and `data` are digests by file name."""
    return Manifest(
        name=config.run.name,
        created=time.time(),
        seed=config.run.seed,
        config=config.model_dump(mode="json"),
        config_toml=dump_toml(config),
        versions=versions(),
        machine=machine_facts(),
        model=model,
        data=data,
    )


def versions() -> dict[str, str]:
    """Of Python, elsa and the packages that decide a result."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def check_unchanged(manifest: Manifest, model: Mapping[str, str], data: Mapping[str, str]) -> None:
    """See that a run goes on with what it began with.

    Raises:
        RunError: a file of the model or the rows have changed since.
    """
    for what, then, now in (("model", manifest.model, model), ("data", manifest.data, data)):
        changed = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
        if changed:
            raise RunError(
                f"the {what} of this run has changed since it began ({', '.join(changed)}): "
                f"put back what {what}.path named then, or start a new run"
            )

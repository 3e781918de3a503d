"""Getting the trained adapters out, for plain PEFT and transformers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from elsa.config.schema import Config
from elsa.data.assets import find_asset
from elsa.engine.parts import ModelParts, model_directory
from elsa.engine.tasks import load_models
from elsa.errors import RunError
from elsa.model.adapters import of_task
from elsa.model.export import export_adapter, export_merged
from elsa.model.tasks import Classification
from elsa.record.checkpoint import load_checkpoint
from elsa.record.manifest import read_manifest


def export_adapters(
    adapters: Mapping[str, Tensor],
    config: Config,
    models: Mapping[str, ModelParts],
    labels: Mapping[str, Sequence[str]],
    out: Path,
    *,
    merge: bool = False,
) -> None:
    """Write a PEFT adapter directory, or with `merge` a whole model, to `out`.

    Of several tasks each gets a folder below `out`, named as the task: the same adapter, and the
    task's own head.

    Args:
        adapters: the global ones.
        config: of the run.
        models: by task; of the only task under "".
        labels: names of the classes, by task.
        out: the folder.
        merge: whether to write whole models.
    """
    for task, model in models.items():
        own = of_task(adapters, model.checkpoint.family, task) if task else adapters
        _export(own, config, model, labels[task], out / task, merge=merge)


def _export(
    adapters: Mapping[str, Tensor],
    config: Config,
    model: ModelParts,
    labels: Sequence[str],
    out: Path,
    *,
    merge: bool,
) -> None:
    path = config.model.path
    # Plain peft finds a hub id by itself, and must be told where anything else lies.
    is_hub_id = find_asset(path) is None and not Path(path).expanduser().is_dir()
    base = path if is_hub_id else str(model.checkpoint.directory.resolve())
    task = replace(model.task, name="") if isinstance(model.task, Classification) else model.task
    parts = (adapters, model.checkpoint, task, model.lora, out)
    if merge:
        export_merged(*parts, label_names=labels)
    else:
        export_adapter(*parts, base_model=base, label_names=labels)


def export_run(
    run: Path,
    out: Path | None = None,
    *,
    merge: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Export the adapters of a run's last checkpoint, finished or not.

    Args:
        run: the run directory.
        out: an empty or new folder; None takes RUN/export, which is replaced if it is there.
        merge: whether to write a whole model with the adapters merged in.
        say: told what takes time.

    Returns:
        The folder.

    Raises:
        RunError: `run` is no run directory or has no whole checkpoint, or `out` holds something.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: is not empty; name a new or empty folder with --out")
    out = out or run / "export"
    config = Config.model_validate_json(json.dumps(read_manifest(run).config))
    checkpoint = load_checkpoint(run)
    labels = checkpoint.state["labels"]
    models = load_models(config, labels, model_directory(config.model.path, say))
    prefix = "global/"
    adapters = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(prefix)
    }
    export_adapters(adapters, config, models, labels, out, merge=merge)
    return out

"""Settings that must go with the model's hidden size D, checked before text or weights come."""

from pathlib import Path

import torch

from elsa.config.schema import Config
from elsa.core.ssop import check_rank
from elsa.data.assets import fetch, find_asset, is_cached
from elsa.engine.codecs import hop_codecs
from elsa.engine.directions import Directions
from elsa.engine.parts import converted_folder
from elsa.model.accelerator import chosen
from elsa.model.checkpoint import DESCRIPTION, read_description, resolve_model


def check_early(config: Config) -> None:
    """Check against the model's config.json, where it can be had without its weights.

    A local directory and a hub id have it; an asset comes whole, so it has once it was fetched.

    Raises:
        ConfigError: a setting does not go with the model, or with this machine.
        ModelError: there is no such model.
    """
    chosen(config.run.accelerator)
    path = config.model.path
    asset = find_asset(path)
    if asset is None:
        check_fits(config, resolve_model(path, (DESCRIPTION,)))
    elif asset.kind == "model" and is_cached(path):
        check_fits(config, fetch(path))
    elif asset.kind == "gguf" and (converted_folder(asset) / DESCRIPTION).is_file():
        check_fits(config, converted_folder(asset))


def check_fits(config: Config, directory: Path) -> None:
    """Check against the config.json of a model directory.

    Raises:
        ConfigError: with the setting that does not go with the model, and what is allowed.
        ModelError: there is no such file, or it cannot be used.
    """
    hidden = int(read_description(directory).hidden_size)
    wire = config.wire.model_copy(update={"folder": ""})
    hop_codecs(wire, hidden, Directions(lambda _: torch.eye(hidden), hidden))
    if config.ssop.rank:
        check_rank(config.ssop.rank, hidden)

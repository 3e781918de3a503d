"""Configs as TOML text: the commented default, and any config without comments."""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from elsa.config.schema import Config


def preset_names() -> tuple[str, ...]:
    """Return the names of the presets that come with the package."""
    folder = files("elsa.config").joinpath("presets")
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def preset_toml(name: str) -> str:
    """Return the text of a preset."""
    return files("elsa.config").joinpath(f"presets/{name}.toml").read_text(encoding="utf-8")


def default_toml() -> str:
    """Return the commented quick start: every key with its default."""
    return preset_toml("quickstart")


def dump_toml(config: Config) -> str:
    """Return a config as TOML without comments; loading it gives an equal config."""
    return "\n".join(_table("", config.model_dump())).strip() + "\n"


def toml_value(value: object) -> str:
    """Return one value as TOML would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        pairs = (f"{toml_value(key)} = {toml_value(item)}" for key, item in value.items())
        return "{ " + ", ".join(pairs) + " }"
    return str(value)


def _table(path: str, table: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{key} = {toml_value(value)}"
        for key, value in table.items()
        if not isinstance(value, Mapping) and value is not None
    ]
    if lines and path:
        lines = ["", f"[{path}]", *lines]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += _table(f"{path}.{key}" if path else key, value)
    return lines

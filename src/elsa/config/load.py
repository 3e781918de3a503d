"""A config from a TOML file or preset and `--set` options, with errors a person can act on."""

import datetime
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from elsa.config.keys import all_keys, nearest_key
from elsa.config.methods import METHODS
from elsa.config.printing import preset_names, preset_toml, toml_value
from elsa.config.schema import Config
from elsa.config.spelling import nearest
from elsa.errors import ConfigError

LONGEST_VALUE = 60


def load_config(source: Path | str | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read and check a config.

    What the source does not name keeps the default of the quick start. Relative paths inside
    a config are relative to the current directory, not to the file.

    Args:
        source: a TOML file, the name of a preset, or None for the quick start.
        overrides: settings "a.b=c" that win over the source; c is read as TOML where it is
            TOML, else as bare text, and always as text for a key that holds text.

    Where run.method names a method, its settings win over the source; an override that says
    otherwise is refused.

    Raises:
        ConfigError: with every problem found, a line each: the key's path, the value, what is
            allowed, and the nearest spelling.
    """
    label, table = _read(source)
    problems = [problem for item in overrides if (problem := _set(table, item)) is not None]
    merged = _with_tuples(_merged(Config().model_dump(), table))
    try:
        config = Config.model_validate(_of_its_method(merged, overrides))
    except ValidationError as error:
        set_keys = {item.partition("=")[0].strip() for item in overrides}
        problems += [_problem(dict(each), set_keys) for each in error.errors()]
        raise ConfigError(_report(label, problems)) from None
    if problems:
        raise ConfigError(_report(label, problems))
    return config


def _read(source: Path | str | None) -> tuple[str, dict[str, Any]]:
    name = "quickstart" if source is None else str(source)
    if name in preset_names():
        return f"the preset {name}", tomllib.loads(preset_toml(name))
    try:
        text = Path(name).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        return name, tomllib.loads(text)
    except FileNotFoundError:
        presets = ", ".join(preset_names())
        raise ConfigError(
            f"{name}: there is no such file and no preset of that name; presets: {presets}; "
            "`elsa run --print-config` prints a config to start from"
        ) from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: is not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: is not valid TOML: {error}") from error


def _set(table: dict[str, Any], item: str) -> str | None:
    """Write one override into the table; return what was wrong with it, if anything."""
    path, equals, text = item.partition("=")
    names = [name.strip() for name in path.split(".")]
    if not equals or not all(names):
        return f"--set {item}: must be KEY=VALUE, for example --set federation.rounds=5"
    for name in names[:-1]:
        if not isinstance(table.get(name), dict):
            table[name] = {}
        table = table[name]
    table[names[-1]] = _parsed(".".join(names), text.strip())
    return None


def _parsed(path: str, text: str) -> object:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = table.pop("value")
    key = all_keys().get(path)
    wants_text = key is not None and key.text and not isinstance(value, str)
    is_date = isinstance(value, datetime.date | datetime.time)
    return text if table or wants_text or is_date else value


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(_with_tuples(item) for item in value) if isinstance(value, list) else value


def _of_its_method(merged: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The table with the settings of the method that it names, but for those of overrides."""
    run = merged.get("run")
    name = run.get("method") if isinstance(run, dict) else None
    if not isinstance(name, str) or name not in METHODS:
        return merged
    try:
        made = METHODS[name].applied(merged)
    except (KeyError, TypeError):  # a section is no table: the schema says so
        return merged
    for key in {item.partition("=")[0].strip() for item in overrides} & set(
        METHODS[name].all_settings
    ) - {"federation.edge_rounds"}:
        *path, last = key.split(".")
        source, target = merged, made
        for part in path:
            source, target = source[part], target[part]
        target[last] = source[last]
    return made


def _report(label: str, problems: Sequence[str]) -> str:
    count = "1 setting" if len(problems) == 1 else f"{len(problems)} settings"
    return "\n  ".join([f"{label}: {count} cannot be used", *problems])


def _problem(error: Mapping[str, Any], set_keys: set[str]) -> str:
    """Turn one finding of the schema into a line for a person."""
    path = ".".join(part for part in error["loc"] if isinstance(part, str))
    steps = (f".{part}" if isinstance(part, str) else f"[{part}]" for part in error["loc"])
    start = "".join(steps).removeprefix(".")
    impossible = error.get("ctx", {}).get("error")
    if impossible is not None and not path:
        return str(impossible)
    if error["type"] != "missing" and not isinstance(error["input"], dict):
        start += f" = {_short(error['input'])}"
    if any(f"{key}.".startswith(f"{path}.") for key in set_keys):
        start += " (from --set)"
    key = all_keys().get(path)
    if impossible is not None:
        return f"{start}: {impossible}"
    if key is None:
        return f"{start}: {_unknown(path)}"
    guess = nearest(str(error["input"]), key.choices)
    hint = f' (did you mean "{guess}"?)' if guess else ""
    return f"{start}: must be {key.allowed}{hint}"


def _short(value: object) -> str:
    text = toml_value(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def _unknown(path: str) -> str:
    guess = nearest_key(path)
    hint = f" (did you mean {guess}?)" if guess else ""
    parent = path.rpartition(".")[0]
    where = f"[{parent}]" if parent else "the file"
    return f"there is no such key{hint}; keys of {where}: {', '.join(all_keys()[parent].children)}"

import tomllib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from elsa.config.keys import all_keys
from elsa.config.load import load_config
from elsa.config.printing import default_toml, dump_toml, preset_names
from elsa.config.schema import Config
from elsa.config.words import HOPS

WORDS = ("", "exact", "rotate+quantize:4:token:gauss", "center:token+sketch:2")
"""Codecs for any hop; the JSON schema does not tell them from other text."""


def leaves(table: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        here = f"{path}.{key}" if path else key
        found |= leaves(value, here) if isinstance(value, dict) else {here: value}
    return found


def comment_lines() -> dict[str, str]:
    """The line of each key of the default preset."""
    lines, table = {}, ""
    for shown in default_toml().splitlines():
        line = shown.removeprefix("# ")  # [[task]] is shown, but not there by default
        if line.startswith("["):
            table = line.partition("]")[0].lstrip("[")
        elif "=" in line and not line.startswith("#"):
            lines[f"{table}.{line.partition('=')[0].strip()}"] = line
    return lines


def test_the_printed_default_names_every_key_of_the_schema_with_its_default() -> None:
    printed = leaves(tomllib.loads(default_toml()))
    schema = leaves(Config().model_dump(exclude={"task"}))
    assert {key: tuple(v) if isinstance(v, list) else v for key, v in printed.items()} == schema


@pytest.mark.parametrize("path", [path for path, key in all_keys().items() if not key.children])
def test_every_key_of_the_printed_default_has_a_comment_with_its_choices(path: str) -> None:
    comment = comment_lines()[path].partition("#")[2]
    choices = all_keys()[path].choices
    assert len(choices) == sum(f'"{choice}"' in comment for choice in choices)
    if path != "federation.edges":
        assert comment.strip()


def test_the_printed_default_fits_a_terminal() -> None:
    assert max(len(line) for line in default_toml().splitlines()) <= 100


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_good_config(name: str) -> None:
    load_config(name)


def strategy(node: dict[str, Any], tables: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Any value that a node of the JSON schema allows."""
    if "$ref" in node:
        node = tables[node["$ref"].rpartition("/")[2]]
    if "properties" in node:
        parts = {
            name: st.sampled_from(WORDS) if name in HOPS else strategy(child, tables)
            for name, child in node["properties"].items()
        }
        return st.fixed_dictionaries(parts)
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if "pattern" in node:
        return st.from_regex(node["pattern"].replace("$", r"\Z"))
    least = node.get("minimum", node.get("exclusiveMinimum"))
    most = node.get("maximum", node.get("exclusiveMaximum"))
    kinds = {
        "array": lambda: st.lists(strategy(node["items"], tables), max_size=3).map(tuple),
        "integer": lambda: st.integers(least, most),
        "number": lambda: st.floats(least, most, allow_nan=False, allow_infinity=False),
        "boolean": st.booleans,
        "string": st.text,
    }
    return kinds[node["type"]]()


SCHEMA = Config.model_json_schema()


def possible(values: dict[str, Any], order: list[str]) -> Config:
    """The config of all sections that go with those before them in this order."""
    config, kept = Config(), dict[str, Any]()
    for name in order:
        with suppress(ValidationError):
            config = Config.model_validate(kept | {name: values[name]})
            kept[name] = values[name]
    return config


@settings(max_examples=50, deadline=None)
@given(strategy(SCHEMA, SCHEMA["$defs"]), st.permutations(list(SCHEMA["properties"])))
def test_loading_a_dumped_config_gives_it_back(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any], order: list[str]
) -> None:
    config = possible(values, order)
    path = tmp_path_factory.getbasetemp() / "dumped.toml"
    path.write_bytes(dump_toml(config).encode())
    assert load_config(path) == config


def test_what_a_dump_does_not_say_is_not_lost_by_the_defaults() -> None:
    """A dump names every key, so that later defaults cannot change an old run."""
    assert leaves(tomllib.loads(dump_toml(Config()))).keys() == leaves(Config().model_dump()).keys()

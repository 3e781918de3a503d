"""Every key of the schema: what it may hold, in words for people, and the nearest spelling."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from elsa.config.schema import Config
from elsa.config.spelling import nearest

KINDS = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
}
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


@dataclass(frozen=True)
class Key:
    """One key of the schema, a table or a value.

    Attributes:
        path: dotted path; empty for the whole file.
        text: whether it holds text.
        allowed: what it may hold, as it follows "must be".
        choices: the values of a key that allows only a few.
        children: keys of a table; empty for a value.
    """

    path: str
    text: bool
    allowed: str
    choices: tuple[str, ...]
    children: tuple[str, ...]


@cache
def all_keys() -> Mapping[str, Key]:
    """Return every table and value of the schema by its dotted path, the root being ""."""
    schema = Config.model_json_schema()
    found: dict[str, Key] = {}
    _collect("", schema, schema.get("$defs", {}), found)
    return found


def nearest_key(path: str) -> str | None:
    """Return the dotted path that an unknown `path` in a known table was probably meant to be."""
    parent, _, name = path.rpartition(".")
    keys = all_keys()
    namesakes = [other for other in keys if other.rpartition(".")[2] == name]
    if namesakes:
        return nearest(path, namesakes) or namesakes[0]
    siblings = {child: f"{parent}.{child}" if parent else child for child in keys[parent].children}
    everywhere = {other.rpartition(".")[2]: other for other in keys}
    known = siblings if parent else everywhere | siblings
    guess = nearest(name, known)
    return known[guess] if guess else None


def _collect(
    path: str, node: Mapping[str, Any], tables: Mapping[str, Any], found: dict[str, Key]
) -> None:
    node = _resolved(node, tables)
    children: Mapping[str, Any] = _rows(node, tables).get("properties", {})
    found[path] = Key(
        path=path,
        text=node.get("type") == "string",
        allowed=_allowed(node, tables),
        choices=tuple(_choices(node)),
        children=tuple(children),
    )
    for name, child in children.items():
        _collect(f"{path}.{name}" if path else name, child, tables, found)


def _rows(node: Mapping[str, Any], tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table that a list of tables repeats, or the node itself."""
    return _resolved(node["items"], tables) if node.get("type") == "array" else node


def _resolved(node: Mapping[str, Any], tables: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = node.get("$ref")
    return tables[reference.rpartition("/")[2]] if reference else node


def _choices(node: Mapping[str, Any]) -> list[str]:
    return [str(node["const"])] if "const" in node else [str(x) for x in node.get("enum", [])]


def _allowed(node: Mapping[str, Any], tables: Mapping[str, Any]) -> str:
    node = _resolved(node, tables)
    if choices := _choices(node):
        listed = ", ".join(f'"{choice}"' for choice in choices)
        return f"one of {listed}" if len(choices) > 1 else listed
    if "anyOf" in node:
        return " or ".join(_allowed(option, tables) for option in node["anyOf"])
    if "properties" in node:
        return "a table with keys of " + ", ".join(node["properties"])
    if node.get("type") == "array":
        return f"a list, each item {_allowed(node['items'], tables)}"
    bounds = " and ".join(f"{word} {node[key]}" for key, word in BOUNDS.items() if key in node)
    if "pattern" in node:
        bounds = f"matching {node['pattern']}"
    return ", ".join(part for part in (KINDS.get(node.get("type", ""), "a value"), bounds) if part)

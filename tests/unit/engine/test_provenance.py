import platform
from pathlib import Path
from typing import Any

import pytest
import torch

from elsa.config.load import load_config
from elsa.data.sources import load_table
from elsa.data.table import Columns, Table
from elsa.engine.parts import digests, table_digest
from elsa.engine.provenance import check_unchanged, new_manifest
from elsa.errors import RunError

MODEL = {"config.json": "aa", "model.safetensors": "bb"}
DATA = {"train": "cc", "test": "dd"}


def test_manifest_says_what_decides_the_result(make: Any, tmp_path: Path) -> None:
    config = make("run.seed=7")
    manifest = new_manifest(config, MODEL, DATA)
    assert (manifest.name, manifest.seed) == ("tiny", 7)
    assert (manifest.model, manifest.data) == (MODEL, DATA)
    assert manifest.versions["python"] == platform.python_version()
    assert manifest.versions["torch"] == torch.__version__
    assert {"elsa", "transformers", "peft", "safetensors", "numpy"} <= manifest.versions.keys()
    assert manifest.machine["threads"] == torch.get_num_threads()
    assert manifest.machine["cores"] >= 1
    # Either form of the config starts the same run again.
    (tmp_path / "again.toml").write_text(manifest.config_toml, encoding="utf-8")
    assert load_config(tmp_path / "again.toml") == config


def test_unchanged_sources_pass(make: Any) -> None:
    check_unchanged(new_manifest(make(), MODEL, DATA), dict(MODEL), dict(DATA))


@pytest.mark.parametrize(
    ("model", "data", "names"),
    [
        (MODEL | {"model.safetensors": "xx"}, DATA, ["model", "(model.safetensors)", "model.path"]),
        ({"config.json": "aa"}, DATA, ["model", "(model.safetensors)"]),
        (MODEL | {"tokenizer.json": "ee"}, DATA, ["model", "(tokenizer.json)"]),
        (MODEL, DATA | {"test": "xx"}, ["data", "(test)", "data.path", "new run"]),
        (MODEL, {"train": "x", "test": "y"}, ["data", "(test, train)"]),
    ],
)
def test_changed_sources_are_named(
    model: dict[str, str], data: dict[str, str], names: list[str], make: Any
) -> None:
    manifest = new_manifest(make(), MODEL, DATA)
    with pytest.raises(RunError) as caught:
        check_unchanged(manifest, model, data)
    assert all(name in str(caught.value) for name in names)


def test_model_digests_cover_all_that_decides(bert: Path, tmp_path: Path) -> None:
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert digests(bert).keys() == names
    for path in bert.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "README.md").write_text("not read", encoding="utf-8")
    assert digests(tmp_path) == digests(bert)
    (tmp_path / "tokenizer.json").write_bytes((bert / "tokenizer.json").read_bytes() + b" ")
    changed = {name for name, it in digests(tmp_path).items() if it != digests(bert)[name]}
    assert changed == {"tokenizer.json"}


def test_table_digest_tells_every_column_apart(questions: Path) -> None:
    table = load_table(str(questions), Columns("question", "", "kind"))
    assert table.label is not None
    text, names = table.text, table.label_names
    flipped = table.label.copy()
    flipped[[0, 1]] = flipped[[1, 0]] if flipped[0] != flipped[1] else (flipped[0] + 1) % 2
    others = [
        Table((*text[:-1], text[-1] + " "), None, table.label, names),
        Table(text, text, table.label, names),
        Table(text, None, flipped, names),
        Table(text, None, table.label, names[::-1]),
        Table(text, None, table.label, names, text),
        Table(text, None, None, ()),
        table.take(range(len(table) - 1)),
    ]
    found = [table_digest(it) for it in (table, *others)]
    assert len(set(found)) == len(found)
    assert table_digest(table.take(range(len(table)))) == found[0]

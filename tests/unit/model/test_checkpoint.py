"""What is said of directories and ids that are no model."""

import json
from pathlib import Path

import pytest

from elsa.errors import ModelError, UnsupportedModelError
from elsa.model.checkpoint import open_checkpoint, resolve_model


def test_sizes(llama_dir: Path) -> None:
    checkpoint = open_checkpoint(str(llama_dir))
    sizes = (checkpoint.blocks, checkpoint.hidden_size, checkpoint.vocabulary)
    assert sizes == (3, 16, 40)
    assert checkpoint.max_tokens == 32
    assert checkpoint.family.model_type == "llama"


def test_roberta_positions_start_after_padding(tmp_path: Path, llama_dir: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1})
    )
    (tmp_path / "model.safetensors").write_bytes((llama_dir / "model.safetensors").read_bytes())
    assert open_checkpoint(tmp_path).max_tokens == 512


def test_unsupported_architecture_names_itself_and_what_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(UnsupportedModelError, match=r"'t5' is not supported; allowed: bert, .*"):
        open_checkpoint(tmp_path)


def test_unusable_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: cannot be used"):
        open_checkpoint(tmp_path)


def test_resolve(llama_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model(str(llama_dir)) == llama_dir
    with pytest.raises(ModelError, match=r"'no/such/directory': no such directory, and no hub id"):
        resolve_model("no/such/directory")

    def unreachable(*args: object, **kwargs: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(ModelError, match=r"'org/name': .*the hub did not give it \(ConnectionErr"):
        resolve_model("org/name")

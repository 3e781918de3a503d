"""Where a model's directory comes from."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from elsa.engine import parts


def test_a_gguf_asset_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, converted = SimpleNamespace(folder="some-model"), []
    asset = SimpleNamespace(kind="gguf", package=package, files=("model.gguf",))

    def convert(source: Path, out: Path) -> None:
        converted.append(source)
        out.mkdir(parents=True)
        (out / "config.json").write_text("{}")

    replaced: dict[str, Any] = {
        "find_asset": lambda _: asset,
        "fetch": lambda _, say: tmp_path / "fetched",
        "cache_dir": lambda: tmp_path / "cache",
        "convert_gguf": convert,
    }
    for name, it in replaced.items():
        monkeypatch.setattr(parts, name, it)
    said: list[str] = []
    found = [parts.model_directory("some", said.append) for _ in range(3)]
    assert set(found) == {tmp_path / "cache" / "converted" / "some-model"}
    assert converted == [tmp_path / "fetched" / "model.gguf"]
    assert said == ["converting some once, from GGUF to safetensors"]

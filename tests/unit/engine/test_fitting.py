"""Settings that do not go with the hidden size are refused before text and weights are there."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from elsa.engine import build
from elsa.engine.build import open_sources
from elsa.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("wire.h1=fill:0.2:33", "wire.h1 = 'fill:0.2:33': 33 public directions; allowed: 1 to 32"),
        ("wire.h2=temporal:0.2:33", "33 public directions; allowed: 1 to 32, the hidden size"),
        ("wire.h1=subspace:33+rotate", "33 public directions; allowed: 1 to 32, the hidden size"),
        ("wire.g1=top:33", "wire.g1 = 'top:33': top-k: k = 33 of hidden size 32"),
        ("wire.g2=sketch:11", "a ratio of 11 leaves 3 rows no bucket of hidden size 32"),
        ("wire.g2=quantize:4:5", "block"),
        ("ssop.rank=33", "allowed are 2 to 32, the model's hidden size"),
    ],
)
def test_a_directory_without_weights_is_enough_to_refuse(
    setting: str,
    why: str,
    make: Any,
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(bert / "config.json", tmp_path)
    monkeypatch.setattr(build, "load_text", lambda *_: pytest.fail("text is read before"))
    with pytest.raises(ConfigError) as caught:
        open_sources(make(f"model.path={tmp_path}", setting))
    assert why in str(caught.value)

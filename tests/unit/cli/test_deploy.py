"""What the command line of a real party means."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from elsa.cli.main import app
from elsa.errors import ConfigError

SETTINGS = ("--set", "federation.edges=2", "--set", "federation.devices=4")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `run_device` was called with, instead of being run."""
    calls: list[Any] = []

    def run_device(config: Any, edges: Any, data: Path, security: Any, **more: Any) -> None:
        calls.append((edges, data, security.name, more["state"]))

    monkeypatch.setattr("elsa.engine.deploy.device.run_device", run_device)
    return calls


def device(*words: str) -> Any:
    line = ["device", "--data", "mine.csv", "--name", "device-3", "--insecure-loopback", *SETTINGS]
    return CliRunner().invoke(app, [*line, *words])


@pytest.mark.parametrize(
    ("given", "edges"),
    [
        (["127.0.0.1:1"], {"edge-1": "127.0.0.1:1"}),  # its own: device 3 of 2 edges
        (["edge-0=127.0.0.1:1"], {"edge-0": "127.0.0.1:1"}),
        (["127.0.0.1:2", "edge-0=[::1]:1"], {"edge-1": "127.0.0.1:2", "edge-0": "[::1]:1"}),
    ],
)
def test_edges_of_a_device(asked: list[Any], given: list[str], edges: dict[str, str]) -> None:
    words = [word for each in given for word in ("--edge", each)]
    assert device(*words, "--state", "kept").exit_code == 0
    assert asked == [(edges, Path("mine.csv"), "device-3", Path("kept"))]


def test_edge_that_is_none_is_refused(asked: list[Any]) -> None:
    done = device("--edge", "edge-2=127.0.0.1:1")
    assert isinstance(done.exception, ConfigError)
    assert "edge-0, edge-1" in str(done.exception)
    assert not asked

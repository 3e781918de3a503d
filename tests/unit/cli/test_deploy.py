"""What the command line of a real party means, and what its link asks for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer.testing import CliRunner

from elsa.cli.main import app
from elsa.errors import ConfigError

Elsa = Callable[..., Any]
SETTINGS = ("--set", "federation.edges=2", "--set", "federation.devices=4")
FLOWER = ("--set", "deploy.link=flower")


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


@pytest.mark.parametrize(
    "words",
    [
        ("cloud", "--insecure-loopback", "--listen", "127.0.0.1:1"),
        ("cloud", "--insecure-loopback", "--edge", "edge-0=127.0.0.1:1", *FLOWER),
        ("cloud", "--insecure-loopback", *FLOWER),
        ("edge", "--insecure-loopback", "--listen", "127.0.0.1:1", "--cloud", "127.0.0.1:2"),
        ("edge", "--insecure-loopback", "--listen", "127.0.0.1:1", *FLOWER),
    ],
)
def test_addresses_that_the_link_does_not_use_or_lacks_are_refused(
    elsa: Elsa, words: tuple[str, ...]
) -> None:
    ended = elsa(*words)
    assert ended.status == 1
    assert ended.said.startswith("ConfigError: deploy.link = '")


@pytest.mark.parametrize("flower", [True, False])
def test_the_cloud_may_be_a_server_where_edges_call_it_and_only_there(
    elsa: Elsa, tmp_path: Path, flower: bool
) -> None:
    more = ("--host", "cloud=10.0.0.1", *FLOWER) if flower else ()
    assert elsa("certs", tmp_path, *more).status == 0
    certificate = x509.load_pem_x509_certificate((tmp_path / "cloud.pem").read_bytes())
    extensions = certificate.extensions
    uses = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert (ExtendedKeyUsageOID.SERVER_AUTH in uses) == flower
    if flower:
        hosts = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        addresses = [str(it) for it in hosts.get_values_for_type(x509.IPAddress)]
        assert addresses == ["127.0.0.1", "::1", "10.0.0.1"]

"""The systemd units and the compose file: whole, hardened, and every command in them is one."""

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from elsa.cli.main import app

FOLDER = Path(__file__).parents[2] / "examples" / "deploy"
UNITS = sorted(FOLDER.glob("*.service"))
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "RestrictSUIDSGID": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "SystemCallFilter": "@system-service",
    "CapabilityBoundingSet": "",
    "User": "elsa",
}


def parsed(words: list[str]) -> dict[str, Any]:
    """What the command line makes of the words after `elsa`; fails if it refuses them."""
    group: Any = typer.main.get_command(app)
    context = group.commands[words[0]].make_context(words[0], words[1:])
    values: dict[str, Any] = context.params
    return values


def unit(path: Path) -> configparser.RawConfigParser:
    text = re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8"))
    parser = configparser.RawConfigParser(strict=True, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    return found


def test_there_is_a_unit_for_each_role() -> None:
    roles = {shlex.split(unit(path)["Service"]["ExecStart"])[1] for path in UNITS}
    assert roles == {"edge", "device", "cloud"}


@pytest.mark.parametrize("path", UNITS, ids=lambda it: it.name)
def test_unit_is_hardened_and_its_command_is_one(path: Path) -> None:
    parser = unit(path)
    assert {"Unit", "Service", "Install"} == set(parser.sections())
    service = parser["Service"]
    assert {name: service[name] for name in HARDENED} == HARDENED
    assert service["Restart"] == "on-failure"
    assert service["MemoryMax"] and service["TimeoutStopSec"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "elsa"
    said = parsed([word.replace("%i", "device-3") for word in words])
    assert not said["plain"] and said["certs"]
    assert str(said.get("out") or "/var/lib/elsa").startswith(
        f"/var/lib/{service['StateDirectory']}"
    )


def test_stopped_cloud_is_no_failure_and_a_finished_one_is_not_tried_for_ever() -> None:
    parser = unit(FOLDER / "elsa-cloud.service")
    assert parser["Service"]["SuccessExitStatus"] == "130"
    assert int(parser["Unit"]["StartLimitBurst"]) < 10


def test_containers_are_hardened_and_hold_their_own_key_only(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"edge-0", "device-0", "device-1", "cloud"}
    for name, service in compose["services"].items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert service["user"].split(":")[0] not in ("0", "root")
        assert not service.get("ports") and not service.get("privileged")
        mounted = [volume.split(":") for volume in service["volumes"]]
        keys = [source for source, *_ in mounted if "key" in source]
        assert keys == [f"./certs/{name}.key"]
        assert all(rest[-1] == "ro" for source, *rest in mounted if source.startswith("."))


def test_commands_of_containers_parse_and_use_what_is_mounted(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        said = parsed(shlex.split(service["command"]))
        assert said.get("name", "cloud") == name
        there = {volume.split(":")[1] for volume in service["volumes"]}
        assert str(said["config"]) in there
        assert {f"{said['certs']}/{it}" for it in ("ca.pem", f"{name}.pem", f"{name}.key")} <= there
        if said.get("data"):
            assert str(said["data"]) in there
        if "healthcheck" in service:
            _, program, *words = service["healthcheck"]["test"]
            assert program == "elsa"
            assert parsed(words)["address"] == said["health"]
        for port in service.get("expose", []):
            assert any(f":{port}" in str(said[key]) for key in ("listen", "metrics") if key in said)
    edges = [it for it in compose["services"] if it.startswith("edge")]
    told = parsed(shlex.split(compose["services"]["cloud"]["command"]))["edge"]
    assert list(told) == [f"{edge}={edge}:7001" for edge in edges]


def test_image_copies_what_is_there() -> None:
    lines = (FOLDER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    root = FOLDER.parents[1]
    assert {"requirements.lock", "pyproject.toml", "src"} <= set(copied)
    assert all((root / word).exists() for word in copied)
    assert 'ENTRYPOINT ["elsa"]' in lines

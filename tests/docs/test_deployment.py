"""docs/deployment.md, walked on one machine: its config, its commands, to its adapter."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
PORTS = ("7001", "7101", "7201")
PATIENCE = 600.0
BIN = Path(sys.executable).parent


def blocks(kind: str) -> list[str]:
    found = re.findall(rf"^ *```{kind}\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return [str(it) for it in found]


def commands() -> list[str]:
    return [line.strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]


class Machine:
    """One machine in the place of three: other ports and addresses, a tiny model."""

    def __init__(self, folder: Path, settings: list[str]) -> None:
        self.folder = folder
        self._settings = [word for it in settings for word in ("--set", it)]
        free = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
        self._here = {"10.0.0.4": "127.0.0.1", "0.0.0.0": "127.0.0.1"}
        for port, held in zip(PORTS, free, strict=True):
            self._here[port] = str(held.getsockname()[1])
            held.close()
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def words(self, line: str) -> list[str]:
        named = "|".join(map(re.escape, self._here))
        line = re.sub(rf"\b({named})\b", lambda found: self._here[found[1]], line)
        words = shlex.split(line)
        if words[0] == "elsa" and words[1] in ("edge", "device", "cloud"):
            words += self._settings
        return [str(BIN / "elsa"), *words[1:]] if words[0] == "elsa" else words

    def run(self, line: str) -> str:
        done = subprocess.run(
            self.words(line),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, line: str) -> None:
        role = line.split()[1]
        with self.log(role).open("wb") as log:
            self.started[role] = subprocess.Popen(
                [*self.words(line), *(["--log", "json"] if role == "edge" else [])],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def log(self, role: str) -> Path:
        return self.folder / f"{role}.log"

    def wait_for(self, role: str, text: str) -> None:
        until = monotonic() + PATIENCE
        while text not in (said := self.log(role).read_text(encoding="utf-8")):
            assert self.started[role].poll() is None and monotonic() < until, said
            sleep(0.05)


@pytest.fixture
def machine(bert: Path, tmp_path: Path) -> Iterator[Machine]:
    settings = [
        f"model.path={bert}",
        "model.max_tokens=32",
        "federation.rounds=2",
        "federation.local_steps=2",
        "train.batch_size=4",
        "run.threads=1",
    ]
    made = Machine(tmp_path, settings)
    yield made
    for process in made.started.values():
        process.kill()
        process.wait()


def test_three_machines_get_from_nothing_to_an_adapter(
    machine: Machine, rows: list[tuple[str, str]]
) -> None:
    (toml,) = blocks("toml")
    (machine.folder / "federation.toml").write_text(toml, encoding="utf-8")
    labels = re.findall(r'"([A-Z]+)"', toml)
    texts = [f"{text},{labels[n % len(labels)]}" for n, (text, _) in enumerate(rows[:60])]
    clean = [line for line in texts if line.count(",") == 1 and '"' not in line]
    assert len(clean) > 20
    (machine.folder / "mine.csv").write_text("\n".join(["question,kind", *clean]) + "\n", "utf-8")
    shown = commands()
    roles = [line for line in shown if line.split()[1] in ("edge", "device", "cloud")]
    assert [line.split()[1] for line in roles] == ["edge", "device", "cloud"]
    health = next(line for line in shown if line.startswith("elsa health"))
    ran = {*roles, health}
    for line in shown:
        if line == roles[0]:
            for each in roles:
                machine.start(each)
            machine.wait_for("edge", "listens at")
            assert machine.run(health) == "serving\n"
            codes = {role: it.wait(PATIENCE) for role, it in machine.started.items()}
            assert set(codes.values()) == {0}, {
                role: machine.log(role).read_text() for role in codes
            }
        elif line.startswith("openssl") and not shutil.which("openssl"):
            continue
        elif line not in ran:
            machine.run(line)
    assert (machine.folder / "runs/first/adapter/adapter_config.json").is_file()
    assert (machine.folder / "merged/config.json").is_file()
    check_log(machine.log("edge"))


def check_log(path: Path) -> None:
    """Every line of an edge's log is JSON: its own, those of libraries, and what it says."""
    lines: list[Mapping[str, Any]] = [json.loads(it) for it in path.read_text("utf-8").splitlines()]
    assert all({"time", "level", "party", "message"} <= set(line) for line in lines)
    said = [str(line["message"]) for line in lines]
    assert any("metrics at" in it for it in said)
    assert "edge-0: the run is over" in said[-3:]


def test_make_target_and_metrics_that_the_page_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([\w-]+)`", PAGE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    from elsa.engine.deploy.metrics import CloudMetrics, EdgeMetrics
    from elsa.wire.meter import Meter

    class Rounds:
        connected = queued = pending = 0

    known = set()
    for registry in (EdgeMetrics(Rounds()).registry, CloudMetrics(Meter()).registry):  # type: ignore[arg-type]
        for family in registry.collect():
            known |= {family.name, f"{family.name}_total"}
    named = set(re.findall(r"`(elsa_\w+)", PAGE))
    assert len(named) > 10
    assert named <= known, named - known

"""The demo on a tiny model: it agrees with the simulation, and leaves no process behind."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
import pytest

import elsa

SCRIPT = Path(__file__).parents[2] / "examples" / "deploy_demo.py"


@pytest.fixture
def small(questions: Path, bert: Path) -> list[str]:
    """Settings of the tiny model and few rows."""
    return [
        f"model.path={bert}",
        "model.max_tokens=32",
        f"data.path={questions}",
        "data.text=question",
        "data.label=kind",
        "data.limit=120",
        "partition.min_rows=8",
        "federation.local_steps=2",
        "adapter.rank=2",
        "train.batch_size=4",
        "wire.preset=exact",
    ]


@pytest.fixture
def demo() -> Any:
    spec = importlib.util.spec_from_file_location("deploy_demo", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(folder: Path, settings: Sequence[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, str(SCRIPT), "--out", str(folder), *settings]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def left_in(folder: Path) -> list[int]:
    """Processes that work in a folder."""
    every = psutil.process_iter(["cwd"])
    return [process.pid for process in every if process.info["cwd"] == str(folder)]


def test_two_edges_and_six_devices_end_where_the_simulation_does_and_load_in_peft(
    tmp_path: Path, small: list[str]
) -> None:
    folder = tmp_path / "demo"
    demo = start(folder, small)
    said, _ = demo.communicate(timeout=600)
    assert demo.returncode == 0, said
    assert "differ by" in said
    assert "plain peft says: [" in said
    logs = {path.stem for path in folder.glob("*.log")}
    assert logs == {"cloud", "edge-0", "edge-1", *(f"device-{n}" for n in range(6))}
    assert not left_in(folder)


@pytest.mark.parametrize("link", ["grpc", "flower"])
def test_whoever_listens_is_whom_the_others_call(
    tmp_path: Path, demo: Any, monkeypatch: Any, link: str
) -> None:
    said: dict[str, tuple[str, ...]] = {}
    monkeypatch.setattr(demo.Parties, "start", lambda _, name, *words: said.update({name: words}))
    monkeypatch.setattr(demo.Parties, "wait", lambda _: None)
    config = elsa.load_config(overrides=[*demo.SHORT, f"deploy.link={link}"])
    demo.deploy(config, tmp_path)
    listen = {
        name: words[words.index("--listen") + 1]
        for name, words in said.items()
        if "--listen" in words
    }
    assert set(listen) == {"edge-0", "edge-1"} | ({"cloud"} if link == "flower" else set())
    assert len(set(listen.values())) == len(listen)
    for n in range(6):
        assert listen[f"edge-{n % 2}"] in said[f"device-{n}"]
    for edge in ("edge-0", "edge-1"):
        if link == "flower":
            assert said[edge][-2:] == ("--cloud", listen["cloud"])
        else:
            assert f"{edge}={listen[edge]}" in said["cloud"]


def test_stopped_demo_ends_its_processes(tmp_path: Path, small: list[str]) -> None:
    folder = tmp_path / "demo"
    demo = start(folder, [*small, "federation.devices=2", "federation.edges=1"])
    until = monotonic() + 300
    while not (folder / "cloud.log").exists():
        assert monotonic() < until and demo.poll() is None
        sleep(0.05)
    assert len(left_in(folder)) >= 3
    demo.send_signal(signal.SIGINT)
    said, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert "stopped; no process is left" in said
    assert not left_in(folder)


@pytest.mark.parametrize(
    "failing", ["import sys; sys.exit(3)", "import os; os.kill(os.getpid(), 9)"]
)
def test_party_that_fails_ends_the_others(
    tmp_path: Path, demo: Any, monkeypatch: Any, failing: str
) -> None:
    real = subprocess.Popen
    monkeypatch.setattr(
        demo.subprocess,
        "Popen",
        lambda command, **more: real([sys.executable, "-c", command[-1]], **more),
    )
    parties = demo.Parties(tmp_path)
    with pytest.raises(demo.PartyError, match="device-0"), parties:
        for name in ("cloud", "edge-0"):
            parties.start(name, "import time; time.sleep(300)")
        parties.start("device-0", failing)
        parties.wait()
    assert not left_in(tmp_path)


def test_party_that_does_not_end_after_the_cloud_is_named(
    tmp_path: Path, demo: Any, monkeypatch: Any
) -> None:
    real = subprocess.Popen
    monkeypatch.setattr(demo, "ENDING", 0.5)
    monkeypatch.setattr(
        demo.subprocess,
        "Popen",
        lambda command, **more: real([sys.executable, "-c", command[-1]], **more),
    )
    parties = demo.Parties(tmp_path)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
    with pytest.raises(demo.PartyError, match="'device-0': 'running'"), parties:
        parties.start("cloud", "pass")
        parties.start("device-0", deaf)
        parties.wait()
    assert not left_in(tmp_path)

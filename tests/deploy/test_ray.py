"""`elsa run --engine ray`, with Ray's own processes, one of which is killed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from elsa.config.printing import dump_toml
from elsa.engine.run import run

PAGE = Path(__file__).parents[2] / "docs/ray.md"


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for Ray's sockets, whose paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="elsa-"))
    yield folder
    shutil.rmtree(folder)


def test_as_documented_with_a_process_killed_it_is_the_run_of_one_process_and_leaves_nothing(
    make: Any, traces: Any, tmp_path: Path, temporary: Path
) -> None:
    config = make("federation.rounds=3", "federation.local_steps=10")
    (tmp_path / "federation.toml").write_text(dump_toml(config), encoding="utf-8")
    (line,) = re.findall(r"^elsa (run .*--engine ray)$", PAGE.read_text("utf-8"), re.MULTILINE)
    command = (Path(sys.executable).with_name("elsa"), *line.split(), "--out", "out", "--json")
    # A cluster of someone else is not joined.
    environment = os.environ | {"TMPDIR": str(temporary), "RAY_ADDRESS": "127.0.0.1:1"}
    said = []
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        for words in process.stderr:
            said.append(words.decode())
            if found := re.search(r"edge-1 at [^;]*process (\d+)", said[-1]):
                victim = int(found[1])
            if said[-1].startswith("round 1/3"):
                os.kill(victim, signal.SIGKILL)
    assert process.returncode == 0, said
    assert sum("edge-1: its process died" in it for it in said) == 1, said
    assert list(temporary.iterdir()) == []
    assert not [it for it in psutil.process_iter() if str(temporary) in _words(it)]
    run(config, out=tmp_path / "whole")
    expected, found = traces(tmp_path / "whole"), traces(tmp_path / "out")
    assert {what for what in found if found[what] != expected[what]} <= {"events"}


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""

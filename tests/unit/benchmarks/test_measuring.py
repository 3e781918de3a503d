"""What a command costs is that of all its processes, wherever they go."""

import os
import sys
import time
from pathlib import Path

import psutil
import pytest
from measuring import Cost, measure

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures on Linux only")

HOLD = "import time; held = bytearray(b'x') * {bytes}; time.sleep({seconds})"
BURN = """
import time
while time.process_time() < 1:
    pass
time.sleep(0.5)
"""


def cost_of(script: str, folder: Path, **options: float) -> Cost:
    log = folder / "log"
    return measure([sys.executable, "-c", script], log, dict(os.environ), **options)


def child(script: str, then: str) -> str:
    """A script that starts another, in a session of its own."""
    return f"""
import subprocess, sys, time
started = subprocess.Popen([sys.executable, "-c", {script!r}], start_new_session=True)
{then}
"""


def test_memory_of_parent_and_child_is_added_and_shared_pages_count_once(tmp_path: Path) -> None:
    holding = HOLD.format(bytes=100_000_000, seconds=2)
    alone = cost_of(holding, tmp_path)
    both = cost_of(child(holding, f"{holding}; started.wait()"), tmp_path)
    forked = cost_of(
        "import os, time; held = bytearray(b'x') * 100_000_000\n"
        "child = os.fork(); time.sleep(2)\n"
        "if child: os.waitpid(child, 0)",
        tmp_path,
    )
    assert 100e6 < alone.peak_bytes < 150e6
    assert 200e6 < both.peak_bytes < 300e6
    assert 100e6 < forked.peak_bytes < 150e6
    assert (alone.processes, both.processes, forked.processes) == (1, 2, 2)


def test_work_of_a_child_that_ended_and_that_nobody_waited_for_is_counted(tmp_path: Path) -> None:
    ignoring = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    script = f"{ignoring}\n{child(BURN, 'time.sleep(0.1)')}\n{BURN}"
    twice = cost_of(script, tmp_path)
    assert 1.8 < twice.cpu_seconds < 4
    assert twice.status == 0


def test_orphan_is_measured_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("measuring._PATIENCE", 1.0)
    before = {it.pid for it in psutil.Process().children()}
    endless = HOLD.format(bytes=100_000_000, seconds=1000)
    left = cost_of(child(endless, "time.sleep(1)"), tmp_path)
    assert left.left_behind == 1
    assert left.peak_bytes > 100e6
    assert {it.pid for it in psutil.Process().children()} == before


def test_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    ended = cost_of("import time; time.sleep(1000)", tmp_path, limit=1.0)
    assert ended.status < 0


def test_what_ran_before_is_no_part_of_it(tmp_path: Path) -> None:
    mine = psutil.Popen([sys.executable, "-c", HOLD.format(bytes=100_000_000, seconds=1000)])
    try:
        while mine.memory_info().rss < 100e6:
            time.sleep(0.05)
        other = cost_of("import time; time.sleep(0.5)", tmp_path)
        assert mine.is_running()
    finally:
        mine.kill()
        mine.wait()
    assert other.peak_bytes < 50e6
    assert other.processes == 1

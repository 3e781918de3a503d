"""Flower's processes come back when they end, and go with the one that wants them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from elsa.engine.flower import children as module
from elsa.engine.flower.children import Children, free_port
from elsa.engine.flower.pulse import Pulse
from elsa.errors import ConfigError

SLEEPER = ("-c", "import time; time.sleep(600)")
PARENT = """
import time
from elsa.engine.flower.children import Children
with Children() as children:
    child = children.supervise("python", "-c", '''
import subprocess, sys
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("grandchild:", grandchild.pid, flush=True)
grandchild.wait()''')
    while not child.last_words():
        time.sleep(0.02)
    print(child.pid, child.last_words().split()[1], children.folder, flush=True)
    time.sleep(600)
"""


def wait_for(what: Callable[[], bool]) -> None:
    until = monotonic() + 60
    while not what():
        assert monotonic() < until
        sleep(0.05)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # nobody may reap an orphan here: a zombie is as good as gone
    return (
        Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    )


def test_a_child_that_ends_is_started_again_and_goes_at_the_end() -> None:
    with Children() as children:
        child = children.supervise("python", *SLEEPER)
        first = child.pid
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: child.starts == 2 and child.alive)
        assert child.pid != first
        assert children.folder.stat().st_mode & 0o077 == 0
    assert not child.alive
    assert not children.folder.exists()


def test_a_child_that_hangs_is_ended_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.1)
    monkeypatch.setattr(module, "_DEAF", 0.5)
    monkeypatch.setattr("elsa.engine.flower.pulse._WAIT", 0.3)
    port = str(free_port())
    pulse = Pulse(f"http://127.0.0.1:{port}/")
    words = ("-m", "http.server", port, "--bind", "127.0.0.1", "--directory")
    with Children() as children:
        child = children.supervise("python", *words, str(children.folder), answers=pulse)
        wait_for(pulse)  # one that has not answered yet is left to start
        sleep(0.5)
        assert child.starts == 1
        os.kill(child.pid, signal.SIGSTOP)
        wait_for(lambda: child.starts == 2 and pulse())


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks /proc about zombies")
def test_nothing_outlives_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child, grandchild, folder = parent.stdout.readline().split()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: is_gone(int(child)) and is_gone(int(grandchild)))
    wait_for(lambda: not Path(folder).exists())


def test_what_flower_must_not_do_is_switched_off() -> None:
    asked = ["FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK", "FLWR_HOME"]
    with Children() as children:
        told = children.once("python", "-c", f"import os; print([os.environ[i] for i in {asked}])")
        assert told.strip() == str(["0", "1", str(children.folder / "home")])


def test_a_command_that_fails_or_is_not_there_says_so() -> None:
    with Children() as children:
        with pytest.raises(ConfigError, match="no such luck"):
            children.once("python", "-c", "import sys; sys.exit('no such luck')")
        with pytest.raises(ConfigError, match=r"elsa\[flower\]"):
            children.supervise("flower-that-is-not-there")


def test_what_a_child_takes_with_it_is_started_again_too_and_not_the_other_way_round() -> None:
    with Children() as children:
        taken = children.supervise("python", *SLEEPER)
        taker = children.supervise("python", *SLEEPER, takes=taken)
        os.kill(taken.pid, signal.SIGKILL)
        wait_for(lambda: taken.starts == 2 and taken.alive)
        assert taker.starts == 1
        os.kill(taker.pid, signal.SIGKILL)
        wait_for(lambda: (taken.starts, taker.starts) == (3, 2) and taken.alive and taker.alive)

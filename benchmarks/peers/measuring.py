"""What a command costs, measured from outside: time, and memory of all processes it brings forth.

Linux only. Whoever measures adopts orphans (PR_SET_CHILD_SUBREAPER), so a process that leaves its
parent, as Ray's do, is still seen. Memory is the proportional set size (PSS): pages shared by
several processes count once. Processor time is each process's own at the last look at it, so what
comes after the last look, and processes shorter than the time between two, are left out.
"""

import ctypes
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

EVERY = 0.1
"""Seconds between two looks."""
_SHARE = 0.03
"""Of the time that looking may take; where it takes more, looks become rarer."""
_PATIENCE = 10.0
"""Seconds that processes have to end by themselves after the command has."""
_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Cost:
    """What a command cost.

    Attributes:
        status: exit status; that of a signal is negative.
        seconds: of wall time, from its start to its end.
        cpu_seconds: processor time of all processes.
        looking_seconds: processor time of measuring, not among them.
        peak_bytes: largest sum of all processes' PSS at a look.
        processes: most processes at a look.
        looks: how many.
        left_behind: processes that outlived the command by ten seconds and were ended.
    """

    status: int
    seconds: float
    cpu_seconds: float
    looking_seconds: float
    peak_bytes: int
    processes: int
    looks: int
    left_behind: int


@dataclass
class Watch:
    """Looks at all descendants of this process but for those that were there before."""

    peak_bytes: int = 0
    processes: int = 0
    looks: int = 0
    _before: frozenset[psutil.Process] = frozenset()
    _cpu: dict[psutil.Process, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Become the parent of orphans, and note who is there already."""
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._before = frozenset(psutil.Process().children(recursive=True))

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all processes seen, those that have ended too."""
        return sum(self._cpu.values())

    def alive(self) -> list[psutil.Process]:
        """Those that run now."""
        found = psutil.Process().children(recursive=True)
        return [it for it in found if it not in self._before and _status(it) not in _ENDED]

    def look(self) -> None:
        """Look once."""
        total = seen = 0
        for process in self.alive():
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    self._cpu[process] = times.user + times.system
                    total += process.memory_full_info().pss
                    seen += 1
            except psutil.Error:  # it has just ended
                continue
        self.peak_bytes = max(self.peak_bytes, total)
        self.processes = max(self.processes, seen)
        self.looks += 1

    def end(self) -> int:
        """Wait for all to end, then end those that do not; how many these were."""
        deadline = time.monotonic() + _PATIENCE
        while (left := self.alive()) and time.monotonic() < deadline:
            self.look()
            time.sleep(EVERY)
        for stop in (psutil.Process.terminate, psutil.Process.kill):
            for process in self.alive():
                try:
                    stop(process)
                except psutil.Error:
                    continue
            psutil.wait_procs(self.alive(), timeout=_PATIENCE)
        orphans = [it for it in psutil.Process().children() if it not in self._before]
        psutil.wait_procs(orphans, timeout=0)  # takes note of them, so that no zombie stays
        return len(left)


_ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD, None)


def measure(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    limit: float = float("inf"),
    folder: Path | None = None,
) -> Cost:
    """Run a command to its end.

    Args:
        command: with its arguments.
        log: file for what it prints.
        environment: of its processes, whole.
        limit: seconds after which it is ended.
        folder: to run it in.
    """
    watch, own = Watch(), time.process_time()
    with log.open("wb") as out:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=dict(environment), cwd=folder
        )
        try:
            seconds = _followed(watch, process, began, limit)
        except BaseException:
            process.terminate()
            raise
        finally:
            left = watch.end()
    return Cost(
        status=process.wait(),
        seconds=seconds,
        cpu_seconds=watch.cpu_seconds,
        looking_seconds=time.process_time() - own,
        peak_bytes=watch.peak_bytes,
        processes=watch.processes,
        looks=watch.looks,
        left_behind=left,
    )


def _followed(watch: Watch, process: subprocess.Popen[bytes], began: float, limit: float) -> float:
    while process.poll() is None:
        before = time.process_time()
        watch.look()
        pause = max(EVERY, (time.process_time() - before) / _SHARE)
        over = time.monotonic() - began - limit
        if over > 0:
            (process.terminate if over < _PATIENCE else process.kill)()
        try:
            process.wait(pause)
        except subprocess.TimeoutExpired:
            continue
    return time.monotonic() - began


def _status(process: psutil.Process) -> str | None:
    try:
        return process.status()
    except psutil.Error:
        return None

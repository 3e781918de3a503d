"""Runs commands side by side, each with its own threads, and stops them when asked to."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

POLL = 0.5
"""Seconds between looks at whether to stop."""
GRACE = 60.0
"""Seconds that a stopped command has to write down what it did."""


@dataclass(frozen=True)
class Job:
    """A command of elsa.

    Attributes:
        name: for people.
        arguments: of `elsa`.
        out: file for its standard output; None drops it.
    """

    name: str
    arguments: Sequence[str]
    out: Path | None = None


@dataclass(frozen=True)
class Ended:
    """How a job ended: `error` is the last thing it said, empty if all went well."""

    job: Job
    error: str


@dataclass
class Pool:
    """Runs jobs.

    Attributes:
        side_by_side: jobs at a time.
        threads: compute threads of each.
        stop: asked all the time; true ends the jobs that run, gently, and starts no other.
    """

    side_by_side: int
    threads: int
    stop: Callable[[], bool]
    _processes: set["subprocess.Popen[str]"] = field(default_factory=set)

    def run(
        self,
        jobs: Sequence[Job],
        began: Callable[[Job], None],
        ended: Callable[[Ended], None],
        tick: Callable[[], None],
    ) -> None:
        """Run all; `began` and `ended` are told of each, `tick` is called now and then.

        If one of them raises, or a second interrupt does, what runs is killed.
        """
        left, running = list(jobs), dict[Future[Ended], Job]()
        with ThreadPoolExecutor(self.side_by_side) as threads:
            try:
                while running or (left and not self.stop()):
                    while left and len(running) < self.side_by_side and not self.stop():
                        job = left.pop(0)
                        began(job)
                        running[threads.submit(self._one, job)] = job
                    done, _ = wait(running, POLL, FIRST_COMPLETED)
                    for future in done:
                        del running[future]
                        ended(future.result())
                    tick()
            except BaseException:
                for process in tuple(self._processes):
                    process.kill()
                raise

    def _one(self, job: Job) -> Ended:
        numbers = str(self.threads)
        # A group of its own: a Ctrl-C at the terminal reaches it through `stop`, and once.
        process = subprocess.Popen(
            [sys.executable, "-m", "elsa.cli.main", *job.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            env=os.environ | {"OMP_NUM_THREADS": numbers, "MKL_NUM_THREADS": numbers},
        )
        self._processes.add(process)
        output, said = self._watched(process)
        self._processes.discard(process)
        if process.returncode:
            lines = [line for line in said.splitlines() if line.strip()]
            return Ended(job, "\n".join(lines[-8:]) or f"exit status {process.returncode}")
        if job.out:
            job.out.parent.mkdir(parents=True, exist_ok=True)
            partial = job.out.with_suffix(".partial")
            partial.write_text(output, encoding="utf-8")
            partial.replace(job.out)
        return Ended(job, "")

    def _watched(self, process: "subprocess.Popen[str]") -> tuple[str, str]:
        """Wait for it, and interrupt it if asked to stop; what it printed, and said."""
        asked = False
        while True:
            try:
                return process.communicate(timeout=GRACE if asked else POLL)
            except subprocess.TimeoutExpired:
                if asked:
                    process.kill()
                elif self.stop():
                    process.send_signal(signal.SIGINT)
                    asked = True

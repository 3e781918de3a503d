"""A run that is killed again and again ends as if nothing had happened.

Run as a script, this file is the run: for each line on its standard input it forks a child that
goes on with the run, so that no child spends time on imports.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from elsa.errors import CheckpointError
from elsa.record.atomic import replaced_folder
from elsa.record.checkpoint import load_checkpoint, save_checkpoint
from elsa.record.directory import RunDirectory, read_summary
from elsa.record.events import CheckpointSaved, DeviceFinished, RoundStarted, RunStarted
from elsa.record.lines import read_lines
from elsa.record.log import read_events
from elsa.record.manifest import Manifest
from elsa.record.metrics import RoundMetrics, read_metrics
from elsa.record.tensorboard import ScalarFile

ROUNDS = 25
KILLS = 15
"""About how often the run is killed; how often exactly is for the clock to say."""
DEVICES = ("a", "b")
MANIFEST = Manifest("run", 1.0, 0, {}, "", {}, {}, {}, {})


def go_on(path: Path) -> None:
    """Do what an engine does: go on from the last checkpoint to the end."""
    with RunDirectory.open(path) as run:
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError:
            run.rewind()
            run.events.append(RunStarted(0, ROUNDS, len(DEVICES), 1))
            first, loss, adapter = 0, 0.0, torch.ones(2000)
        else:
            run.rewind(checkpoint.offsets)
            run.events.append(CheckpointSaved(checkpoint.round))
            first, loss = checkpoint.round + 1, checkpoint.state["loss"]
            adapter = checkpoint.tensors["adapter"]
        for number in range(first, ROUNDS):
            run.events.append(RoundStarted(number, DEVICES))
            for device in DEVICES:
                adapter = torch.sin(adapter + number)
                loss = float(adapter[0])
                run.events.append(DeviceFinished(number, 0, "edge", device, 16, loss, 1.0))
            run.metrics.append(row(number, loss))
            save_checkpoint(run, number, {"adapter": adapter}, {"loss": loss})
            run.events.append(CheckpointSaved(number))
        with replaced_folder(run.adapter) as folder:
            torch.save(adapter, folder / "first")
            torch.save(adapter, folder / "second")
        run.write_summary({"loss": loss})


def row(number: int, loss: float) -> RoundMetrics:
    return RoundMetrics(number, loss, 32, *[None] * 6, *[number] * 5, 1.0, 1.0, 0)


def forks(path: Path) -> None:
    ScalarFile(path / "tensorboard").close()
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                go_on(path)
                os._exit(0)
            finally:
                os._exit(1)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


@contextlib.contextmanager
def forking(path: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    with subprocess.Popen(
        [sys.executable, __file__, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdin, process.stdout
        process.stdin.close()


def test_a_run_killed_at_random_moments_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    for path in (whole, torn):
        RunDirectory.create(path, MANIFEST).close()
    ScalarFile(tmp_path / "warm").close()
    start = time.monotonic()
    go_on(whole)
    life = 2 * (time.monotonic() - start) / KILLS
    chance = random.Random(0)
    reached, kills, ended = -1, 0, -signal.SIGKILL
    with forking(torn) as (ask, answer):
        while ended == -signal.SIGKILL:
            ask.write("go on\n")
            ask.flush()
            child = int(answer.readline())
            time.sleep(chance.uniform(0, life))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            ended = int(answer.readline())
            kills += ended == -signal.SIGKILL
            before, reached = reached, looked_at(torn, reached)
            life *= 1.2 if reached == before else 1
    assert ended == 0
    assert kills > 3
    assert contents(torn) == contents(whole)


def looked_at(path: Path, reached: int) -> int:
    """Read a killed run, which may have lost nothing it had; return the round it has reached."""
    read_events(path / "events.jsonl")
    read_metrics(path / "metrics.csv")
    read_summary(path)
    if (path / "adapter").exists():
        assert len(list((path / "adapter").iterdir())) == 2
    with contextlib.suppress(CheckpointError):
        now = load_checkpoint(path)
        assert now.skipped == ()
        assert now.round >= reached
        return now.round
    assert reached == -1
    return reached


def contents(path: Path) -> dict[str, Any]:
    """What a run holds, without times."""
    last = load_checkpoint(path)
    return {
        "names": sorted(entry.name for entry in path.iterdir()),
        # Killed right after it wrote its last checkpoint, a run has not yet dropped the third.
        "checkpoints": sorted(entry.name[:12] for entry in (path / "checkpoint").iterdir())[-2:],
        "events": [without_time(line) for line in read_lines(path / "events.jsonl")],
        "metrics": [line.rpartition(b",")[0] for line in read_lines(path / "metrics.csv")],
        "adapter": last.tensors["adapter"].tolist(),
        "loss": read_summary(path),
        "event files": len(list((path / "tensorboard").iterdir())),
    }


def without_time(line: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(line)
    del fields["time"]
    return fields


if __name__ == "__main__":
    forks(Path(sys.argv[1]))

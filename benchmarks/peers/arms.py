"""The arms: what each runs, in which environment, and how its outcome is read."""

import csv
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import interpreter
from job import Job, settings

HERE = Path(__file__).parent.resolve()
PRECISIONS = ("float32", "bfloat16")
_DROPPED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Place:
    """Where one run of an arm finds and leaves things.

    Attributes:
        job: the folder that `job.write` wrote.
        work: an empty folder of this run, of a short name (Ray's sockets lie in it).
        environments: the folder of the peers' environments.
        precision: float32 or bfloat16.
    """

    job: Path
    work: Path
    environments: Path
    precision: str

    @property
    def result(self) -> Path:
        """What a peer's run leaves."""
        return self.work / "result.json"


@dataclass(frozen=True)
class Arm:
    """One way to do the job.

    Attributes:
        title: for tables.
        command: what is run.
        environment: of its processes.
        outcome: accuracy and loss of every round, and bytes, of a run that has ended.
    """

    title: str
    command: Callable[[Job, Place], list[str]]
    environment: Callable[[Job, Place], Mapping[str, str]]
    outcome: Callable[[Place], dict[str, Any]]


def _peer_environment(_: Job, place: Place) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    return (
        kept
        | _OFFLINE
        | {
            "OMP_NUM_THREADS": "1",
            "FLWR_HOME": str(place.work / "flower"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(place.work),
        }
    )


def _own_environment(job: Job, _: Place) -> dict[str, str]:
    return dict(os.environ) | _OFFLINE | {"OMP_NUM_THREADS": str(job.threads)}


def _peer_outcome(place: Place) -> dict[str, Any]:
    outcome: dict[str, Any] = json.loads(place.result.read_text(encoding="utf-8"))
    return outcome


def _flower(_: Job, place: Place) -> list[str]:
    python = str(interpreter(place.environments, "flower"))
    files = [str(HERE / "flower_job.py"), str(place.job), str(place.result)]
    return [python, *files, "--precision", place.precision]


def _nvflare(at_once: Callable[[Job], int]) -> Callable[[Job, Place], list[str]]:
    def command(job: Job, place: Place) -> list[str]:
        python = str(interpreter(place.environments, "nvflare"))
        files = [str(HERE / "nvflare_job.py"), str(place.job), str(place.result), str(place.work)]
        return [python, *files, "--precision", place.precision, "--at-once", str(at_once(job))]

    return command


def _elsa(method: str) -> Callable[[Job, Place], list[str]]:
    def command(job: Job, place: Place) -> list[str]:
        options = [part for it in settings(job, method, place.precision) for part in ("--set", it)]
        out = str(place.work / "run")
        return [sys.executable, "-m", "elsa.cli.main", "run", "--json", "--out", out, *options]

    return command


def _own_outcome(place: Place) -> dict[str, Any]:
    run = place.work / "run"
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rounds = list(csv.DictReader(file))
    passed = json.loads((run / "summary.json").read_text(encoding="utf-8"))["bytes"]
    return {
        "accuracy": [float(it["accuracy"]) for it in rounds],
        "loss": [float(it["evaluation_loss"]) for it in rounds],
        "bytes_up": passed["device_to_edge"],
        "bytes_down": passed["edge_to_device"],
        "bytes_edges_and_cloud": passed["edge_to_cloud"] + passed["cloud_to_edge"],
    }


ARMS: Mapping[str, Arm] = {
    "flower": Arm("Flower simulation", _flower, _peer_environment, _peer_outcome),
    "nvflare": Arm(
        "NVFlare simulation, 2 clients at once",
        _nvflare(lambda job: job.threads),
        _peer_environment,
        _peer_outcome,
    ),
    "nvflare-all": Arm(
        "NVFlare simulation, all clients at once",
        _nvflare(lambda job: job.devices),
        _peer_environment,
        _peer_outcome,
    ),
    "fedavg": Arm("elsa, FedAvg", _elsa("fedavg"), _own_environment, _own_outcome),
    "elsa": Arm("elsa, ELSA", _elsa("elsa"), _own_environment, _own_outcome),
}
"""By the name that --arms takes."""

"""What a finished run says, read from its directory, and what `elsa plan` says of its method."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elsa.config.methods import METHODS
from elsa.errors import RunError
from elsa.record.directory import read_summary
from elsa.record.events import DeviceEvaluated
from elsa.record.log import read_events
from elsa.record.manifest import read_manifest
from elsa.record.metrics import read_metrics

HOPS = ("device_to_edge", "edge_to_device", "edge_to_cloud", "cloud_to_edge")


@dataclass(frozen=True)
class Point:
    """An evaluation: after so many rounds, simulated seconds and bytes.

    Attributes:
        rounds: edge rounds so far: local steps of each device and an average.
        seconds: simulated.
        bytes: of all hops.
        accuracy: on the common test rows.
    """

    rounds: int
    seconds: float
    bytes: int
    accuracy: float


@dataclass(frozen=True)
class Outcome:
    """A finished run of a method.

    Attributes:
        method, seed: which.
        rate: learning rate.
        accuracy, loss: on the common test rows.
        mean_device, worst_device: accuracy on the devices' own held-out rows.
        samples: rows trained on.
        simulated_seconds, wall_seconds: of the run.
        bytes: by hop; None for hops that the method has not.
        curve: its evaluations.
        devices: last predictions on each device's own held-out rows, how many were right and of how
            many; devices without such rows are left out.
    """

    method: str
    seed: int
    rate: float
    accuracy: float
    loss: float | None
    mean_device: float | None
    worst_device: float | None
    samples: int
    simulated_seconds: float
    wall_seconds: float
    bytes: Mapping[str, int | None]
    curve: Sequence[Point]
    devices: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def first(self, target: float) -> Point | None:
        """The first evaluation that reached an accuracy."""
        return next((point for point in self.curve if point.accuracy >= target), None)

    @property
    def own(self) -> float:
        """What learning rates are chosen by: mean accuracy on the devices' own held-out rows.

        Where no device keeps any, accuracy on the common test rows.
        """
        return self.accuracy if self.mean_device is None else self.mean_device


@dataclass(frozen=True)
class Cost:
    """What a method asks of devices and servers, by the cost model.

    Attributes:
        device_memory: bytes that the fullest device holds for model and training; None where
            devices train nothing.
        device_flops, server_flops: operations of all devices and of all servers, a local step of
            one device.
    """

    device_memory: float | None
    device_flops: float | None
    server_flops: float


def read_outcome(folder: Path, method: str, seed: int) -> Outcome:
    """Read a finished run.

    Raises:
        RunError: it has no accuracy, or cannot be read.
    """
    summary, config = read_summary(folder), read_manifest(folder).config
    if summary is None or summary.get("accuracy") is None:
        raise RunError(f"{folder}: has no accuracy on common test rows")
    pooled = config["federation"]["pooled"]
    flat, passed = METHODS[method].flat, summary["bytes"]
    # One server is edge and cloud at once, and whoever has all rows sends nothing.
    absent = HOPS if pooled else HOPS[2:] if flat else ()
    hops = {hop: None if hop in absent else passed[hop] for hop in HOPS}
    return Outcome(
        method=method,
        seed=seed,
        rate=config["train"]["learning_rate"],
        accuracy=summary["accuracy"],
        loss=summary.get("loss"),
        mean_device=summary.get("accuracy_mean_device"),
        worst_device=summary.get("accuracy_worst_device"),
        samples=summary["samples"],
        simulated_seconds=summary["simulated_seconds"],
        wall_seconds=summary["wall_seconds"],
        bytes=hops,
        curve=_curve(folder, [hop for hop in HOPS if hops[hop] is not None], config),
        devices=_devices(folder),
    )


def read_cost(path: Path, method: str) -> Cost | None:
    """Read what `elsa plan --json` wrote; None if it is not there."""
    if not path.is_file():
        return None
    plan = json.loads(path.read_text(encoding="utf-8"))
    devices = [it for it in plan["devices"] if it["fits"]]
    device = plan["totals"]["devices"]["flops"] / max(_steps(plan), 1e-9)
    server = plan["totals"]["edges"]["flops"] / max(_steps(plan), 1e-9)
    if METHODS[method].settings.get("federation.pooled"):
        return Cost(None, None, device + server)
    return Cost(max((it["memory"] for it in devices), default=0.0), device, server)


def _steps(plan: Mapping[str, Any]) -> float:
    """Local steps of all devices in a global round."""
    return float(
        sum(it["round_flops"] / it["flops"] for it in plan["devices"] if it["fits"] and it["flops"])
    )


def _curve(folder: Path, hops: Sequence[str], config: Mapping[str, Any]) -> list[Point]:
    points, seconds, passed = [], 0.0, 0
    for row in read_metrics(folder / "metrics.csv"):
        seconds += row.simulated_seconds
        passed += sum(getattr(row, f"bytes_{hop}") for hop in hops)
        if row.accuracy is not None:
            rounds = (row.round + 1) * config["federation"]["edge_rounds"]
            points.append(Point(rounds, seconds, passed, row.accuracy))
    return points


def _devices(folder: Path) -> dict[str, tuple[int, int]]:
    path = folder / "events.jsonl"
    seen = [it.event for it in read_events(path)] if path.is_file() else []
    return {
        it.device: (it.correct, it.items)
        for it in seen  # of several evaluations the last one stays
        if isinstance(it, DeviceEvaluated)
    }

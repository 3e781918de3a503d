"""The rounds of a run, with everything they leave on disk."""

import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from time import monotonic
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from elsa.config.schema import Config
from elsa.core.cluster import embedding
from elsa.engine.accounting import spent
from elsa.engine.build import Sources, tester_of
from elsa.engine.export import export_adapters
from elsa.engine.globalround import DeviceRound, Rounds, Watch
from elsa.engine.planner import Planner
from elsa.engine.scores import evaluated, of_devices
from elsa.errors import Interrupted
from elsa.record import events
from elsa.record.checkpoint import Checkpoint, save_checkpoint
from elsa.record.directory import RunDirectory
from elsa.record.events import Event
from elsa.record.metrics import RoundMetrics
from elsa.record.shelf import Shelf
from elsa.roles.cloud import Cloud
from elsa.roles.overseer import Place, Regrouping, Standing
from elsa.wire.meter import Meter

Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Totals:
    """What a run has added up so far; part of every checkpoint.

    Attributes:
        samples: rows trained on, repeats counted.
        training_seconds: wall time of the rounds alone, without set-up and evaluation.
        wall_seconds: wall time in all, of earlier processes too.
        simulated_seconds: on the virtual clock.
        loss: mean training loss of the last round.
        scores: of the last evaluation.
        tasks: accuracy of each task in it, if there are several.
        taken: global rounds that each device took part in.
        rows: training rows of each device that has told.
    """

    samples: int = 0
    training_seconds: float = 0.0
    wall_seconds: float = 0.0
    simulated_seconds: float = 0.0
    loss: float = 0.0
    scores: Mapping[str, float | None] | None = None
    tasks: Mapping[str, float] = field(default_factory=dict)
    taken: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)


class State(Protocol):
    """What this process holds of a federation, and saves: `Federation`, or the cloud's side."""

    @property
    def config(self) -> Config:
        """What it was built from."""
        ...

    @property
    def cloud(self) -> Cloud:
        """The root."""
        ...

    @property
    def meter(self) -> Meter:
        """Counts what passes the links of this process."""
        ...

    @property
    def shelf(self) -> Shelf | None:
        """What a checkpoint must hold besides."""
        ...

    def poisoned(self, round_: int) -> frozenset[str]:
        """Names of the devices that are poisoned in a global round."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold as tensors; the adapters under "global/"."""
        ...

    def positions(self) -> dict[str, int]:
        """Where each device's stream of batches stands."""
        ...

    def restore(
        self, round_: int, tensors: Mapping[str, Tensor], positions: Mapping[str, int]
    ) -> None:
        """Go on from what `tensors` and `positions` gave before this round."""
        ...


class Runner:
    """Drives a federation to its last round and records it."""

    def __init__(
        self,
        federation: State,
        sources: Sources,
        directory: RunDirectory,
        listen: Listener,
        stop: Callable[[], bool],
        play: Callable[[Watch], Rounds],
        planner: Planner | None = None,
    ) -> None:
        self._federation = federation
        self._planner = planner
        self._sources = sources
        self._directory = directory
        self._listen = listen
        self._stop = stop
        watch = Watch(
            self._tick, self._device, self._unheard, self._judged, self._regrouped, self._placed
        )
        self._rounds = play(watch)
        self._totals = Totals()
        self._before = 0.0
        self._resumed = False
        self._config = federation.config

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this run; its logs are cut back to it."""
        state = checkpoint.state
        self._resumed = True
        self._federation.cloud.restore_standings(state["standings"])
        if self._planner is not None:
            self._planner.restore(state["planner"])
        if self._federation.shelf is not None:
            checkpoint.fill(self._federation.shelf)
        self._federation.restore(checkpoint.round, checkpoint.tensors, state["positions"])
        self._federation.meter.restore(state["meter"])
        self._totals = Totals(**state["totals"])
        self._before = self._totals.wall_seconds
        self._rounds.seconds = self._totals.simulated_seconds
        self._rounds.restore(state["rounds"])
        self._directory.rewind(checkpoint.offsets)
        self._emit(events.CheckpointSaved(checkpoint.round))
        shape = self._config.federation
        self._listen(events.RunStarted(checkpoint.round, shape.rounds, shape.devices, shape.edges))

    def run(self, started: float) -> dict[str, Any]:
        """Train the rounds that are left, export the adapter, and return the summary.

        Args:
            started: when this process began with the run, on the monotonic clock.
        """
        cloud, rounds = self._federation.cloud, self._config.federation.rounds
        self._started = started
        try:
            if not self._resumed:
                shape = self._config.federation
                self._emit(events.RunStarted(0, rounds, shape.devices, shape.edges))
                for place in cloud.places:
                    self._emit(events.DevicePlaced(-1, **asdict(place)))
                self._save()
            while cloud.round < rounds:
                self._round()
        except Interrupted:
            self._emit(events.Interrupted(cloud.round))
            raise
        summary = self._summary()
        export_adapters(
            cloud.adapters,
            self._config,
            {task.name: task.model for task in self._sources.tasks},
            self._sources.labels(),
            self._directory.adapter,
        )
        self._directory.write_summary(summary)
        self._emit(events.RunFinished(rounds, summary))
        return summary

    def _round(self) -> None:
        cloud, meter = self._federation.cloud, self._federation.meter
        number, began, simulated = cloud.round, monotonic(), self._rounds.seconds
        traffic = meter.by_hop(phase="train")
        self._replan(number)
        self._rounds.gather()
        devices = tuple(sorted(cloud.participants()))
        self._emit(events.RoundStarted(number, devices, self._config.federation.edge_rounds))
        if evil := self._federation.poisoned(number).intersection(devices):
            self._emit(events.Poisoned(number, self._config.attack.kind, tuple(sorted(evil))))
        assignment = cloud.assignment
        reports = self._rounds.train_round()
        seconds = monotonic() - began
        edges = {device: edge for edge, group in assignment.items() for device in group}
        for lost in (report for report in reports if report.lost):
            self._emit(events.DeviceLost(number, edges[lost.device], lost.device, lost.lost))
        samples = sum(report.samples for report in reports)
        loss = sum(report.loss * report.samples for report in reports) / max(samples, 1)
        now = meter.by_hop(phase="train")
        passed = {hop: now[hop] - traffic[hop] for hop in now}
        finished = events.RoundFinished(
            number, loss, samples, seconds, self._rounds.seconds - simulated, passed
        )
        self._emit(finished)
        totals = self._totals
        self._totals = replace(
            totals,
            samples=totals.samples + samples,
            training_seconds=totals.training_seconds + seconds,
            simulated_seconds=self._rounds.seconds,
            loss=loss,
            taken={**totals.taken, **{it: totals.taken.get(it, 0) + 1 for it in devices}},
            rows={**totals.rows, **{it.device: it.rows for it in reports if it.rows}},
        )
        for account in self._spent():
            self._emit(account)
        scores = self._evaluate(number)
        self._directory.metrics.append(_metrics(finished, scores, self._totals.tasks))
        self._save()

    def _replan(self, number: int) -> None:
        changed = self._planner.replan(number) if self._planner is not None else {}
        if changed:
            splits = {name: (it.bottom, it.trunk, it.top) for name, it in changed.items()}
            self._emit(events.SplitsChosen(number, splits))
        if changed and self._planner is not None:
            self._directory.write_plan(self._planner.reckoned())

    def _spent(self) -> Sequence[events.NoiseSpent]:
        totals = self._totals
        return spent(self._config, self._federation.cloud.round - 1, totals.taken, totals.rows)

    def _evaluate(self, number: int) -> events.Evaluated | None:
        every, rounds = self._config.evaluate.every, self._config.federation.rounds
        if (number + 1) % every and number + 1 != rounds:
            return None
        causal = self._config.model.task == "causal-lm"
        testers = {task.name: tester_of(task.name) for task in self._sources.tasks}
        answers = bool(self._config.data.answer or self._config.data.messages)
        tallies = self._rounds.evaluate()
        of_each, scores = evaluated(number, tallies, testers, causal=causal, answers=answers)
        for device in of_devices(number, tallies, testers.values()):
            self._emit(device)
        for each in of_each:
            self._emit(each)
        self._emit(scores)
        fields = asdict(scores)
        del fields["round"], fields["kind"]
        by_task = {it.task: it.accuracy for it in of_each}
        self._totals = replace(self._totals, scores=fields, tasks=by_task)
        return scores

    def _save(self) -> None:
        federation = self._federation
        self._totals = replace(
            self._totals, wall_seconds=self._before + monotonic() - self._started
        )
        state = {
            "positions": federation.positions(),
            "standings": federation.cloud.standings(),
            "rounds": self._rounds.state(),
            "meter": federation.meter.state(),
            "totals": asdict(self._totals),
            "labels": self._sources.labels(),
        }
        if self._planner is not None:
            state["planner"] = self._planner.state()
        held = federation.tensors(), state, federation.shelf
        save_checkpoint(self._directory, federation.cloud.round, *held)
        self._emit(events.CheckpointSaved(federation.cloud.round))

    def _summary(self) -> dict[str, Any]:
        totals, meter = self._totals, self._federation.meter
        scores = dict(totals.scores or {})
        summary: dict[str, Any] = {
            name: value for name, value in scores.items() if value is not None and name != "loss"
        }
        if totals.tasks:
            summary["tasks"] = dict(totals.tasks)
        if accounts := self._spent():
            summary["epsilon"] = {it.unit: it.epsilon for it in accounts}
            summary["delta"] = self._config.noise.delta
        return summary | {
            "loss": scores.get("loss"),
            "training_loss": totals.loss,
            "rounds": self._federation.cloud.round,
            "samples": totals.samples,
            "samples_per_second": totals.samples / max(totals.training_seconds, 1e-9),
            "wall_seconds": self._before + monotonic() - self._started,
            "simulated_seconds": totals.simulated_seconds,
            "bytes": meter.by_hop(phase="train")
            | {"evaluation": meter.total(phase="evaluate").bytes},
            "peak_rss_bytes": peak_rss(),
        }

    def _device(self, seen: DeviceRound) -> None:
        if seen.lost:
            return
        if self._planner is not None:
            self._planner.observe(seen.device, seen.pace)
        number = self._federation.cloud.round
        self._emit(
            events.DeviceFinished(
                number,
                seen.edge_round,
                seen.edge,
                seen.device,
                seen.samples,
                seen.loss,
                seen.seconds,
            )
        )

    def _unheard(self, edge: str, device: str, reason: str) -> None:
        number = self._federation.cloud.round - 1
        self._emit(events.DeviceLost(number, edge, device, f"in evaluation: {reason}"))

    def _judged(self, edge_round: int, standings: Sequence[Standing]) -> None:
        number = self._federation.cloud.round
        for standing in standings:
            self._emit(events.DeviceJudged(number, edge_round, **asdict(standing)))

    def _regrouped(self, made: Regrouping) -> None:
        name = f"clusters/round-{made.round:06d}.npz"
        arrays = {
            "devices": np.array(made.devices),
            "labels": np.array(made.labels, np.int64),
            "apart": made.apart.numpy(),
            "plane": embedding(made.apart).numpy(),
        }
        self._directory.write_arrays(name, arrays)
        moved = sum(place.edge not in ("", place.before) for place in made.places)
        nowhere = sum(not place.edge for place in made.places)
        clusters = len(set(made.labels))
        self._emit(events.Clustered(made.round, clusters, moved, nowhere, name))
        for place in made.places:
            self._emit(events.DevicePlaced(made.round, **asdict(place)))

    def _placed(self, places: Sequence[Place]) -> None:
        for place in places:
            self._emit(events.DevicePlaced(self._federation.cloud.round - 1, **asdict(place)))

    def _tick(self) -> None:
        if self._stop():
            raise Interrupted(
                f"stopped in round {self._federation.cloud.round + 1}; what that round had done "
                f"so far is left out. Go on with: elsa resume {self._directory.path}"
            )

    def _emit(self, event: Event) -> None:
        self._directory.events.append(event)
        self._listen(event)


def peak_rss() -> int:
    """Largest resident memory of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _metrics(
    finished: events.RoundFinished, scores: events.Evaluated | None, tasks: Mapping[str, float]
) -> RoundMetrics:
    return RoundMetrics(
        round=finished.round,
        loss=finished.loss,
        samples=finished.samples,
        evaluation_loss=scores.loss if scores else None,
        accuracy=scores.accuracy if scores else None,
        accuracy_mean_device=scores.accuracy_mean_device if scores else None,
        accuracy_worst_device=scores.accuracy_worst_device if scores else None,
        perplexity=scores.perplexity if scores else None,
        accuracy_by_task=dict(tasks) if scores and tasks else None,
        answers=scores.answers if scores else None,
        bytes_device_to_edge=finished.bytes["device_to_edge"],
        bytes_edge_to_device=finished.bytes["edge_to_device"],
        bytes_edge_to_cloud=finished.bytes["edge_to_cloud"],
        bytes_cloud_to_edge=finished.bytes["cloud_to_edge"],
        bytes_uncompressed_padded_float32=finished.bytes["uncompressed_padded_float32"],
        simulated_seconds=finished.simulated_seconds,
        wall_seconds=finished.wall_seconds,
        peak_rss_bytes=peak_rss(),
    )

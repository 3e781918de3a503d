"""Live progress: a bar on a terminal, plain lines elsewhere; always on standard error."""

from collections.abc import Mapping
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from elsa.record import events
from elsa.record.events import Event
from elsa.report.numbers import duration, size


class Progress:
    """Shows a run's events as they happen."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[now]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._rounds = 0
        self._seconds: list[float] = []
        self._began = monotonic()
        self._slowest: tuple[float, str] = (0.0, "")
        self._lost: list[str] = []
        self._line = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flush()
        self._bar.stop()

    def say(self, line: str) -> None:
        """Print a line that is no event."""
        self._console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def event(self, event: Event) -> None:
        """Show what happened."""
        match event:
            case events.RunStarted():
                self._rounds = event.rounds
                done = f", {event.round} of them done" if event.round else ""
                self.say(
                    f"{event.devices} devices, {event.edges} edges, {event.rounds} rounds{done}"
                )
            case events.RoundStarted():
                self._start_round(event)
            case events.SplitsChosen():
                self.say(f"  round {event.round + 1}: {_splits(event)}")
            case events.DeviceFinished():
                self._slowest = max(self._slowest, (event.simulated_seconds, event.device))
                if self._task is not None:
                    self._bar.update(
                        self._task,
                        advance=1,
                        now=f"{event.edge} {event.device} loss {event.loss:.3f}",
                    )
            case events.DeviceLost():
                self._lost.append(event.device)
                self.say(f"  {event.device} left out by {event.edge}: {event.reason}")
            case events.RoundFinished():
                self._line = self._round_line(event)
                if self._task is not None:
                    self._bar.update(self._task, now="evaluating")
            case events.TaskEvaluated():
                self._line += f"  {event.task} {event.accuracy:.3f}"
            case events.Evaluated():
                self._line += _scores(event)
            case events.CheckpointSaved():
                self._flush()
            case _:
                pass

    def _start_round(self, event: events.RoundStarted) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._slowest, self._lost = (0.0, ""), []
        self._began = monotonic()
        self._task = self._bar.add_task(
            f"round {event.round + 1}",
            total=len(event.devices) * event.edge_rounds,
            now=f"{len(event.devices)} devices",
        )

    def _round_line(self, event: events.RoundFinished) -> str:
        width = len(str(self._rounds or event.round + 1))
        of = f"/{self._rounds}" if self._rounds else ""
        slowest = f", slowest {self._slowest[1]}" if self._slowest[1] else ""
        line = (
            f"round {event.round + 1:{width}}{of}  loss {event.loss:.3f}  {_traffic(event.bytes)}"
        )
        if not event.simulated_seconds:  # real machines
            return line
        return f"{line}  simulated {duration(event.simulated_seconds)}{slowest}"

    def _flush(self) -> None:
        if not self._line:
            return
        self._seconds.append(monotonic() - self._began)
        done = len(self._seconds)
        left = ""
        if self._rounds and (number := _number(self._line)) < self._rounds:
            eta = (self._rounds - number) * sum(self._seconds) / done
            left = f"  left {duration(eta)}"
        self.say(f"{self._line}{left}")
        self._line = ""


def _number(line: str) -> int:
    return int(line.split()[1].split("/", maxsplit=1)[0])


def _splits(event: events.SplitsChosen) -> str:
    count = len(event.splits)
    kinds = sorted({"/".join(map(str, split)) for split in event.splits.values()})
    shown = ", ".join(kinds[:6]) + (" ..." if len(kinds) > 6 else "")
    return f"{count} device{'s have' if count > 1 else ' has'} a new split p/o/q: {shown}"


def _traffic(passed: Mapping[str, int]) -> str:
    """Bytes by hop; a cloud on real machines does not see those of devices."""
    devices = passed["device_to_edge"] + passed["edge_to_device"]
    cloud = passed["edge_to_cloud"] + passed["cloud_to_edge"]
    seen = f"devices-edges {size(devices)}  " if devices else ""
    return f"{seen}edges-cloud {size(cloud)}"


def _scores(event: events.Evaluated) -> str:
    parts = [""]
    if event.loss is not None:
        parts.append(f"test loss {event.loss:.3f}")
    if event.accuracy is not None:
        parts.append(f"accuracy {event.accuracy:.3f}")
    if event.accuracy_worst_device is not None:
        parts.append(f"worst device {event.accuracy_worst_device:.3f}")
    if event.perplexity is not None:
        parts.append(f"perplexity {event.perplexity:.2f}")
    if event.answers is not None:
        parts.append(f"answers {event.answers:.3f}")
    return "  ".join(parts)

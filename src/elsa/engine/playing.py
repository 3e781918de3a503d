"""What plays the rounds of a run: this process alone, or others that it drives."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from elsa.config.schema import Config
from elsa.engine.federation import Federation, shelved
from elsa.engine.globalround import Rounds, Watch
from elsa.engine.recording import recorded
from elsa.engine.runner import State
from elsa.engine.simulate import Simulation
from elsa.engine.timeline import Timeline, rows_of
from elsa.record.directory import RunDirectory
from elsa.record.timeline import TimelineFile

Say = Callable[[str], None]


@dataclass(frozen=True)
class Playing:
    """A federation that is ready to be played.

    Attributes:
        state: what a checkpoint is made of.
        rounds: plays its rounds, given who is told of them.
    """

    state: State
    rounds: Callable[[Watch], Rounds]


Ready = Callable[[Federation, RunDirectory], Playing]
"""From the parties, built in this process, and the folder of the run."""


class Engine(Protocol):
    """Where and in which order the parties of a run compute."""

    def check(self, config: Config, trace: Path | None) -> None:
        """See that it can play such a run; raises ConfigError if it cannot."""
        ...

    def open(self, config: Config, trace: Path | None, say: Say) -> AbstractContextManager[Ready]:
        """Start whatever it needs, until the run is over.

        Args:
            config: of the run.
            trace: file for a timeline of the rounds, if there is to be one.
            say: told what takes time.

        Raises:
            ElsaError: what stands in the way.
        """
        ...


class Embedded:
    """All parties in this process, one after the other."""

    def check(self, config: Config, trace: Path | None) -> None:
        """It can play every run."""

    @contextmanager
    def open(
        self,
        config: Config,  # noqa: ARG002
        trace: Path | None,
        say: Say,  # noqa: ARG002
    ) -> Iterator[Ready]:
        """Nothing is started; see `Engine`."""
        with ExitStack() as running:

            def ready(federation: Federation, directory: RunDirectory) -> Playing:
                held = recorded(shelved(federation, directory.path), directory.path)
                timeline = None
                if trace is not None:
                    file = running.enter_context(TimelineFile(trace, rows_of(held)))
                    timeline = Timeline(file)
                return Playing(held, partial(Simulation, held, timeline=timeline))

            yield ready


EMBEDDED = Embedded()

"""An edge in a process of its own, as the driver sees it: started again whenever it dies.

A process that began anew is brought to where the last checkpoint stood, and then asked again, in
order, whatever it was asked since. What an edge answers follows from what it was asked, so it ends
where the other one was; nobody else notices.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from elsa.engine.clock import Speed
from elsa.engine.ray.luggage import News, Said
from elsa.errors import LinkError, SessionError
from elsa.wire.meter import Meter, Phase

TRIES = 3
"""Times that an edge's process may die between two checkpoints before the run is given up."""

Tell = Callable[[News], None]
Answer = TypeVar("Answer")


class Worker(Protocol):
    """A process with a `Host` in it, building or built.

    Every method raises SessionError where the process is no more, and what the host raises.
    """

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the host."""
        ...

    def ask(
        self, frame: bytes, at: float, speeds: Mapping[str, Speed], phase: Phase, tell: Tell
    ) -> Said:
        """See `Host.ask`; `tell` is told what happens meanwhile."""
        ...


class RemoteEdge:
    """One edge; it plays the part of an `EdgeSide`. One call at a time.

    Attributes:
        seconds: as of an `EdgeSide`.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[str], Worker],
        recall: Callable[[str], Iterable[tuple[str, Any]]],
        meter: Meter,
        tell: Tell,
        say: Callable[[str], None],
    ) -> None:
        """Set up.

        Args:
            name: of the edge.
            start: starts a process that builds its side.
            recall: calls of the host, each with one argument, that bring it to where the last
                checkpoint stood.
            meter: counts what passes below the edge too.
            tell: told of devices; called in whatever thread asks the edge.
            say: told when its process died.
        """
        self.seconds = 0.0
        self._name = name
        self._start = start
        self._recall = recall
        self._meter = meter
        self._tell = tell
        self._say = say
        self._worker: Worker | None = None
        self._done: list[Callable[[Worker], object]] = []
        self._deaths = 0
        self._over = False

    def answer(self, frame: bytes, at: float, speeds: Mapping[str, Speed]) -> bytes:
        """Answer the cloud; see `EdgeSide.answer`."""
        phase, told = self._meter.phase, 0

        def asked(worker: Worker) -> Said:
            nonlocal told
            coming = 0

            def tell(news: News) -> None:  # a process that began anew tells again from the first on
                nonlocal told, coming
                coming += 1
                if coming > told:
                    told = coming
                    self._tell(news)

            said = worker.ask(frame, at, speeds, phase, tell)
            for news in said.news:
                tell(news)
            return said

        said = self._try(asked)
        self._done.append(lambda it: it.ask(frame, at, speeds, phase, lambda _: None))
        self._meter.add(said.traffic)
        self.seconds = said.seconds
        return said.frame

    def state(self) -> dict[str, Any]:
        """Work under way after a global round; see `EdgeSide.state`."""
        found: dict[str, Any] = self.look("state")
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state` that the last checkpoint holds."""
        self.look("resume", state)

    def change(self, method: str, *args: Any) -> None:
        """Call a method of its host that changes it; done again by a process that begins anew."""
        self._try(lambda it: it.call(method, *args))
        self._done.append(lambda it: it.call(method, *args))

    def look(self, method: str, *args: Any) -> Any:
        """Call a method of its host that changes nothing, or nothing that no checkpoint holds."""
        return self._try(lambda it: it.call(method, *args))

    def saved(self) -> None:
        """From now on a process that begins anew finds all of this in a checkpoint."""
        self._done.clear()
        self._deaths = 0

    def end(self) -> None:
        """Start no process any more."""
        self._over = True

    def _try(self, work: Callable[[Worker], Answer]) -> Answer:
        while True:
            try:
                if self._worker is None:
                    self._worker = self._begin()
                return work(self._worker)
            except SessionError as error:
                self._worker = None
                if self._over:
                    raise LinkError(f"{self._name}: the run is over") from error
                self._deaths += 1
                if self._deaths > TRIES:
                    raise LinkError(
                        f"{self._name}: its process died {self._deaths} times since the last "
                        f"checkpoint, at last so: {error}. Every round before is kept: "
                        "`elsa resume` goes on, with --engine embedded too"
                    ) from error
                self._say(f"{self._name}: its process died; another one takes its place ({error})")

    def _begin(self) -> Worker:
        worker = self._start(self._name)
        for method, argument in self._recall(self._name):
            worker.call(method, argument)
        for work in self._done:
            work(worker)
        return worker

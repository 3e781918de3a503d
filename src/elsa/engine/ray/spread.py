"""The rounds of a simulation whose edges compute at the same time, each in its process."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from queue import Empty

from elsa.engine.deploy.asking import Answer, Asking
from elsa.engine.globalround import Watch
from elsa.engine.ray.crew import Crew
from elsa.engine.simulate import Simulation
from elsa.errors import ElsaError
from elsa.wire.messages import Message


class Spread(Simulation):
    """A simulation as the driver plays it; `seconds` and answers are those of one process."""

    def __init__(self, crew: Crew, watch: Watch) -> None:
        """Set up; `watch` is told how it goes, of several edges as it comes."""
        super().__init__(crew.federation, watch, sides=crew.edges)
        self._crew = crew
        self._asking = Asking(self.lines)

    def gather(self) -> None:
        """All are always there; those that moved or have a new split get ready."""
        self._crew.move()
        self._crew.refit()

    def ask(self, requests: Mapping[str, Message]) -> Iterator[tuple[str, Message]]:
        """The answer of each edge, in the order in which they are asked: all at once.

        Raises:
            ElsaError: an edge refuses, or its process died too often.
            Interrupted: `Watch.tick` said so.
        """
        self._crew.move()
        answers = self._asking.ask(requests, _first_failure, self._tick)
        self._hear()
        for name, answer in answers.items():
            if isinstance(answer, ElsaError):
                raise answer
            yield name, answer

    def close(self) -> None:
        """Ask nothing more, once the processes have been ended."""
        self._asking.close(wait=True)

    def _tick(self) -> None:
        self._hear()
        self._watch.tick()

    def _hear(self) -> None:
        with suppress(Empty):
            while True:
                whom, what = self._crew.news.get_nowait()
                getattr(self._watch, whom)(*what)


def _first_failure(_: object, answers: Mapping[str, Answer]) -> str:
    """Wait for no other edge where one failed."""
    for answer in answers.values():
        if isinstance(answer, ElsaError):
            raise answer
    return ""

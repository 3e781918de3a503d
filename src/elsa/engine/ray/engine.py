"""`--engine ray`: the simulation with each edge in a process of Ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from elsa.config.schema import Config
from elsa.engine.build import assignment_of
from elsa.engine.federation import Federation
from elsa.engine.globalround import Watch
from elsa.engine.playing import Playing, Ready, Say
from elsa.engine.ray.cluster import RayWorker, joined
from elsa.engine.ray.crew import Crew
from elsa.engine.ray.refusals import check_spreadable
from elsa.engine.ray.spread import Spread
from elsa.record.directory import RunDirectory


@dataclass(frozen=True)
class OnRay:
    """Edges in processes of a Ray cluster.

    Attributes:
        address: HOST:PORT of one that runs; empty starts one on this machine.
    """

    address: str = ""

    def check(self, config: Config, trace: Path | None) -> None:
        """See that such edges can play the run; raises ConfigError if they cannot."""
        check_spreadable(config, trace)

    @contextmanager
    def open(self, config: Config, trace: Path | None, say: Say) -> Iterator[Ready]:  # noqa: ARG002
        """Join or start the cluster, and have all edges built; see `Engine`."""
        names = list(assignment_of(config))
        settings, folder = config.model_dump_json(), str(Path.cwd())
        crews: list[Crew] = []
        spreads: list[Spread] = []
        with joined(self.address, len(names), config.run.threads, say) as cluster:

            def start(edge: str) -> RayWorker:
                return first.pop(edge, None) or cluster.start(settings, edge, folder)

            first = {edge: cluster.start(settings, edge, folder) for edge in names}

            def ready(federation: Federation, directory: RunDirectory) -> Playing:
                crew = Crew(federation, directory, start, say)
                crews.append(crew)
                found = (f"{edge} at {place}" for edge, place in crew.places().items())
                say(f"edges on Ray: {'; '.join(found)}")
                if self.address:
                    crew.check()

                def rounds(watch: Watch) -> Spread:
                    spreads.append(Spread(crew, watch))
                    return spreads[-1]

                return Playing(crew, rounds)

            try:
                yield ready
            finally:
                for crew in crews:
                    crew.end()
                cluster.end()
                for spread in spreads:  # whose threads end now
                    spread.close()

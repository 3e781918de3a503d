"""The edges of a run in processes of their own, and where each device's state is.

The driver has built all parties too. Its devices never train: they say which splits are planned,
and what batches cost. Moments come from the edges for a checkpoint, those that are new, and lie on
the driver's shelf as those of an embedded run do; so a checkpoint is one of that engine as well.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from queue import SimpleQueue
from typing import Any

from torch import Tensor

from elsa.config.schema import Config
from elsa.core.split import Split
from elsa.engine.cloudstate import known_to, remind
from elsa.engine.federation import Federation, by_party
from elsa.engine.ray.luggage import Luggage, News, packed, unpacked
from elsa.engine.ray.remote import RemoteEdge, Worker
from elsa.errors import ConfigError
from elsa.record.checkpoint import load_checkpoint
from elsa.record.directory import RunDirectory
from elsa.record.shelf import Shelf
from elsa.roles.cloud import Cloud
from elsa.wire.meter import Meter

AT_ONCE = 16
"""Owners whose moments, or devices whose state, cross together."""


class Crew:
    """What the driver holds of a run, and saves; see `engine.runner.State`.

    Attributes:
        federation: all parties as the driver built them.
        edges: in their processes, by name.
        news: what they told of, not yet heard.
    """

    def __init__(
        self,
        federation: Federation,
        directory: RunDirectory,
        start: Callable[[str], Worker],
        say: Callable[[str], None],
    ) -> None:
        """Set up.

        Args:
            federation: as built, without a shelf.
            directory: of the run, where its checkpoints are.
            start: starts the process of an edge, by its name.
            say: told when one died.
        """
        self.news: SimpleQueue[News] = SimpleQueue()
        self._shelf = Shelf(directory.path)
        self.federation = replace(federation, shelf=self._shelf)
        self._directory = directory
        self.edges = {
            name: RemoteEdge(name, start, self._recall, federation.meter, self.news.put, say)
            for name in federation.edges
        }
        self._where = self._homes()
        self._splits = self._planned()
        self._saved = dict(self._where), dict(self._splits)

    @property
    def config(self) -> Config:
        """What the run was built from."""
        return self.federation.config

    @property
    def cloud(self) -> Cloud:
        """The root; the driver is the cloud."""
        return self.federation.cloud

    @property
    def meter(self) -> Meter:
        """Counts the links to the edges, and is told of those below."""
        return self.federation.meter

    @property
    def shelf(self) -> Shelf:
        """The moments, as the last checkpoint has them."""
        return self._shelf

    def poisoned(self, round_: int) -> frozenset[str]:
        """Names of the devices that are poisoned in a global round."""
        return self.federation.poisoned(round_)

    def check(self) -> None:
        """See that all edges found the model and the rows that the driver has.

        Raises:
            ConfigError: one did not.
        """
        ours = self._directory.manifest
        for name, edge in self.edges.items():
            model, data = edge.look("digests")
            for what, here, there in (("model", ours.model, model), ("data", ours.data, data)):
                differing = sorted(it for it in {*here, *there} if here.get(it) != there.get(it))
                if differing:
                    raise ConfigError(
                        f"{name} found another {what} on its machine than there is here "
                        f"({', '.join(differing[:3])}): give all machines of the cluster the same "
                        "files under the same paths"
                    )

    def places(self) -> dict[str, str]:
        """Where the process of each edge is, once it has built what it needs."""
        return {name: edge.look("place") for name, edge in self.edges.items()}

    def end(self) -> None:
        """Start no process any more."""
        for edge in self.edges.values():
            edge.end()

    def move(self) -> None:
        """Bring each device's state to the edge where it belongs by now."""
        for edge, devices in self.cloud.assignment.items():
            for name in devices:
                if self._where[name] != edge:
                    luggage = self.edges[self._where[name]].look("give", name)
                    self.edges[edge].change("take", luggage)
                    self._where[name] = edge

    def refit(self) -> None:
        """Give devices the splits that are planned for them by now."""
        for name, split in self._planned().items():
            if self._splits[name] != split:
                self.edges[self._where[name]].change("refit", name, split)
                self._splits[name] = split

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold; what is done since then must be in none."""
        held = known_to(self.cloud)
        for name, edge in self.edges.items():
            gone = {f"device/{it}" for it, at in self._where.items() if at != name}
            owners = iter(it for it in edge.look("fresh") if it not in gone)
            while chosen := list(islice(owners, AT_ONCE)):
                for owner, moments in edge.look("lift", chosen).items():
                    self._shelf.lay(owner, *moments)
            held |= unpacked(edge.look("held", self._at(name, self._where)))
        self._mark()
        return held

    def positions(self) -> dict[str, int]:
        """Where each device's stream of batches stands."""
        found: dict[str, int] = {}
        for name, edge in self.edges.items():
            found |= edge.look("positions", self._at(name, self._where))
        return {name: found[name] for name in self.federation.devices}

    def restore(
        self, round_: int, tensors: Mapping[str, Tensor], positions: Mapping[str, int]
    ) -> None:
        """Go on from what `tensors` and `positions` gave before this round, and from the shelf."""
        remind(self.cloud, round_, tensors)
        self._where, self._splits = self._homes(), self._planned()
        self._mark()
        for name, edge in self.edges.items():
            for luggage in self._luggage(name, tensors, positions, self._shelf):
                edge.look("take", luggage)

    def _recall(self, edge: str) -> Iterator[tuple[str, Any]]:
        """What brings an edge's new process to where the last checkpoint stood."""
        if not any(self._directory.checkpoints.iterdir()):
            return
        checkpoint = load_checkpoint(self._directory.path)
        shelf = Shelf(self._directory.path)  # ours may have newer moments, of some owners
        checkpoint.fill(shelf)
        positions = checkpoint.state["positions"]
        for luggage in self._luggage(edge, checkpoint.tensors, positions, shelf):
            yield "take", luggage
        yield "resume", checkpoint.state["rounds"][edge]

    def _luggage(
        self,
        edge: str,
        tensors: Mapping[str, Tensor],
        positions: Mapping[str, int],
        shelf: Shelf,
    ) -> Iterator[Luggage]:
        """What an edge and its devices held at the last checkpoint, a few at a time."""
        where, splits = self._saved
        held = by_party(tensors)

        def part(owner: str, *kinds: str) -> dict[str, Tensor]:
            return {
                f"{kind}/{owner}/{name}": value
                for kind in kinds
                for name, value in held.get((kind, owner), {}).items()
            }

        yield Luggage(held=packed(part(edge, "edge-memory", "edge-flight")), edge=True)
        owners = (it for it in shelf if it.startswith(f"edge/{edge}/"))
        while chosen := list(islice(owners, AT_ONCE)):
            yield Luggage(moments={owner: shelf.lift(owner) for owner in chosen})
        devices = iter(self._at(edge, where))
        while chosen := list(islice(devices, AT_ONCE)):
            memory: dict[str, Tensor] = {}
            for name in chosen:
                memory |= part(name, "device-memory")
            kept = [it for name in chosen if (it := f"device/{name}") in shelf]
            yield Luggage(
                {name: splits[name] for name in chosen},
                {name: positions[name] for name in chosen},
                packed(memory),
                {owner: shelf.lift(owner) for owner in kept},
            )

    def _mark(self) -> None:
        """A checkpoint holds all of this."""
        self._saved = dict(self._where), dict(self._splits)
        for edge in self.edges.values():
            edge.saved()

    def _homes(self) -> dict[str, str]:
        """The edge that has each device; the first, those that are at none."""
        first = next(iter(self.edges))
        places = {it: edge for edge, own in self.cloud.assignment.items() for it in own}
        return {name: places.get(name, first) for name in self.federation.devices}

    def _planned(self) -> dict[str, Split]:
        return {name: it.segments.split for name, it in self.federation.devices.items()}

    @staticmethod
    def _at(edge: str, where: Mapping[str, str]) -> list[str]:
        return [name for name, at in where.items() if at == edge]

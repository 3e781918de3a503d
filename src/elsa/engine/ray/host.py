"""An edge server with its devices in a process of its own.

The process builds what the driver builds, all devices of the run among them, and plays its own edge
alone. So a device that moves to it needs to bring what it learned, and nothing else. Devices of
other edges are never played here, whatever they hold is out of date.
"""

import os
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import gettempdir
from typing import Any

from elsa.config.schema import Config
from elsa.core.split import Split
from elsa.engine.build import build_federation, digests_of, open_sources
from elsa.engine.clock import Speed
from elsa.engine.edgeside import EdgeSide
from elsa.engine.federation import shelved
from elsa.engine.globalround import Watch
from elsa.engine.machine import prepare
from elsa.engine.planner import hand_over
from elsa.engine.public import check_public
from elsa.engine.ray.luggage import Luggage, News, Said, packed, unpacked
from elsa.engine.tasks import models_of
from elsa.record.shelf import Layout
from elsa.wire.meter import Phase


class Host:
    """What an edge's process can do; nothing before `build`. One call at a time, but for `news`."""

    def __init__(self) -> None:
        self._news: SimpleQueue[News] = SimpleQueue()

    def build(self, settings: str, edge: str, threads: int, folder: str) -> None:
        """Build the run's parties.

        Args:
            settings: the config, as JSON.
            edge: name of the one to play.
            threads: to compute with.
            folder: where relative paths begin, if it is there.

        Raises:
            ElsaError: text or model cannot be had here, or do not go with the config.
        """
        with suppress(OSError):
            os.chdir(folder)
        config = Config.model_validate_json(settings)
        prepare(threads)
        check_public(config)
        self._sources = open_sources(config)
        self._federation = shelved(build_federation(config, self._sources), Path(gettempdir()))
        assert self._federation.shelf is not None
        self._shelf = self._federation.shelf
        self._models = models_of(config, self._sources.tasks, list(self._federation.devices))
        self._edge = self._federation.edges[edge]
        watch = Watch(
            device=lambda seen: self._news.put(("device", (seen,))),
            unheard=lambda *whom: self._news.put(("unheard", whom)),
        )
        self._side = EdgeSide(self._federation, self._edge, watch)

    def place(self) -> str:
        """The machine and the number of this process."""
        return f"{platform.node()}, process {os.getpid()}"

    def digests(self) -> tuple[dict[str, str], dict[str, str]]:
        """SHA-256 of the model's files and of the rows, as found here."""
        return digests_of(self._sources)

    def ask(self, frame: bytes, at: float, speeds: Mapping[str, Speed], phase: Phase) -> Said:
        """Answer the cloud.

        Args:
            frame: the request.
            at: simulated time when it has come.
            speeds: of the devices in this round.
            phase: what the federation is doing.
        """
        meter = self._federation.meter
        meter.phase = phase
        answer = self._side.answer(frame, at, speeds)
        traffic = meter.state()
        meter.restore([])
        return Said(answer, self._side.seconds, traffic, self.news())

    def news(self) -> list[News]:
        """What happened and was not told before; may be called while `ask` is under way."""
        found: list[News] = []
        with suppress(Empty):
            while True:
                found.append(self._news.get_nowait())
        return found

    def refit(self, device: str, split: Split) -> None:
        """Give a device of this edge another split, with the moments of what changes hands."""
        hand_over(self._federation.devices[device], self._edge, self._models[device], split)

    def give(self, device: str) -> Luggage:
        """What a device takes with it to another edge."""
        owner, it = f"device/{device}", self._federation.devices[device]
        return Luggage(
            {device: it.segments.split},
            {device: it.position},
            packed(self._federation.held_by((), (device,))),
            self.lift([owner] if owner in self._shelf else []),
        )

    def take(self, luggage: Luggage) -> None:
        """Go on from there, with the devices and the edge that it is of."""
        devices = self._federation.devices
        for name, split in luggage.splits.items():
            devices[name].refit(self._models[name].segments(split), {})  # forgets what it kept
        for owner, moments in luggage.moments.items():
            self._shelf.lay(owner, *moments)
        edges = [self._edge.name] if luggage.edge else []
        self._federation.hand_back(unpacked(luggage.held), edges, luggage.positions)

    def positions(self, devices: Iterable[str]) -> dict[str, int]:
        """Where the streams of batches of these devices stand."""
        return {name: self._federation.devices[name].position for name in devices}

    def held(self, devices: Iterable[str]) -> bytes:
        """Of these devices and the edge, what a checkpoint must hold besides moments."""
        return packed(self._federation.held_by((self._edge.name,), devices))

    def fresh(self) -> list[str]:
        """Owners of moments that are new since this was asked last."""
        found = sorted(self._shelf.fresh)
        self._shelf.fresh.clear()
        return found

    def lift(self, owners: Iterable[str]) -> dict[str, tuple[Layout, bytes]]:
        """The moments of these owners, as they lie on the shelf."""
        return {owner: self._shelf.lift(owner) for owner in owners}

    def state(self) -> dict[str, Any]:
        """See `EdgeSide.state`."""
        return self._side.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        """See `EdgeSide.restore`."""
        self._side.restore(state)

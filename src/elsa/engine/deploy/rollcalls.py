"""Roll calls: who is there for the next round, and where each device belongs."""

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from time import monotonic, sleep

from elsa.engine.build import device_names
from elsa.engine.deploy.asking import Asking
from elsa.engine.deploy.side import CloudSide
from elsa.engine.globalround import Watch
from elsa.errors import RunError
from elsa.roles.muster import Found
from elsa.wire.places import Move, Presence, RollCall

_PAUSE = 0.5
"""Seconds between roll calls while somebody is waited for."""
_GLANCE = {"grpc": 2.0, "flower": 30.0}
"""Seconds that an edge which was not there last time has to answer a roll call, by link."""
_BACK = {"grpc": 0.0, "flower": 90.0}
"""Seconds that whoever was there is waited for at least: Flower needs 61 to let an edge in again,
and up to 30 for a message."""
_log = logging.getLogger(__name__)


class RollCalls:
    """Asks all edges who is there, and sends devices where they belong.

    Attributes:
        back: seconds that whoever was there has to come back, or to answer.
    """

    def __init__(self, side: CloudSide, asking: Asking, watch: Watch) -> None:
        """Set up; at first, all are expected."""
        self._side, self._asking, self._watch = side, asking, watch
        patience = side.config.deploy
        self.back = max(patience.reconnect_seconds, _BACK[patience.link])
        self._glance = _GLANCE[patience.link]
        self._round_seconds = patience.round_seconds
        self._edges = set(side.edges)  # those that were there last time
        self._gone: set[str] = set()
        self._devices = set(device_names(side.config))

    def gather(self) -> None:
        """Find out who is there for the next round, and where each device belongs.

        Whoever was there last time is waited for a while; if there is nobody, for longer.

        Raises:
            RunError: no device came for as long as a round may take.
        """
        side = self._side
        began = monotonic()
        found = self._seek(began + self.back, lambda it: self._devices <= it.keys())
        while not found:
            if monotonic() - began > self._round_seconds:
                raise RunError(
                    f"no device was at any edge for {self._round_seconds:g} s; what was trained "
                    "is kept: start the cloud again with the same --out"
                )
            _log.warning("no device is at any edge; waiting")
            until = monotonic() + self.back
            found = self._seek(until, lambda it: self._devices <= it.keys())
        round_, capacity = side.cloud.round, side.config.cluster.capacity
        places = side.musterer.muster(round_, found, self._edges, capacity)
        side.cloud.assignment = side.musterer.assignment()
        if places:
            self._watch.placed(places)
        self._send(found)
        self._devices = set(found)

    def _seek(
        self, until: float, enough: Callable[[Mapping[str, Found]], bool]
    ) -> dict[str, Found]:
        """The devices that are there; waits until they are enough, or until some time."""
        found: dict[str, Found] = {}
        while not (found := self._roll(until)) or not enough(found):
            if monotonic() > until:
                break
            sleep(_PAUSE)
        return found

    def _roll(
        self, until: float, moves: Mapping[str, Sequence[Move]] | None = None
    ) -> dict[str, Found]:
        """Ask who is there once; an edge that was not there last time has a glance only."""
        expected, glanced = self._edges or set(self._side.edges), monotonic() + self._glance

        def give_up(left: Collection[str], _: object) -> str:
            now = monotonic()
            waiting = now <= glanced or (expected.intersection(left) and now <= until)
            return "" if waiting else "did not answer the roll call in time"

        calls = {it: RollCall(tuple((moves or {}).get(it, ()))) for it in self._side.edges}
        answers = self._asking.ask(calls, give_up, self._watch.tick)
        self._edges = {name for name, it in answers.items() if isinstance(it, Presence)}
        for name in set(calls) - self._edges - self._gone:
            _log.warning("%s is not there: %s", name, answers[name])
        for name in self._gone & self._edges:
            _log.info("%s is there", name)
        self._gone = set(calls) - self._edges
        heard: dict[str, tuple[float, Found]] = {}
        for name, answer in answers.items():
            for it in answer.present if isinstance(answer, Presence) else ():
                found = Found(name, {way.edge: way.seconds / 2 for way in it.routes})
                if it.silent < heard.get(it.device, (math.inf,))[0]:  # two claim it: the last heard
                    heard[it.device] = (it.silent, found)
        return {device: heard[device][1] for device in sorted(heard)}

    def _send(self, found: Mapping[str, Found]) -> None:
        """Have devices that belong elsewhere go there, and wait a while for them to arrive."""
        placed, until = self._side.musterer.placed, monotonic() + self.back
        going = {name for name, it in found.items() if placed[name] not in ("", it.edge)}
        while going and monotonic() <= until:
            moves: dict[str, list[Move]] = {}
            for name in going & found.keys():
                moves.setdefault(found[name].edge, []).append(Move(name, placed[name]))
            self._roll(until, moves)
            sleep(_PAUSE)
            found = self._roll(until)
            going -= {name for name, it in found.items() if it.edge == placed[name]}

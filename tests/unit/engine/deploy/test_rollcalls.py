"""How long edges have to answer a roll call, on a clock that the waiting itself moves."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from elsa.config.load import load_config
from elsa.engine.deploy import rollcalls as module
from elsa.engine.deploy.asking import Asking
from elsa.engine.deploy.rollcalls import RollCalls
from elsa.errors import LinkError
from elsa.wire.messages import Message
from elsa.wire.places import Presence, Present

SLOW = 10.0
"""Seconds that an edge takes: longer than over gRPC, as long as over Flower on a busy machine."""


class Edge:
    """Has one device, of its own number; may be away, or answer only after a while."""

    def __init__(self, number: int, clock: "Clock") -> None:
        self.away, self.slow, self._number, self._clock = False, False, number, clock

    def call(self, _: Message) -> Message:
        if self.away:
            raise LinkError("away")
        if self.slow:
            self._clock.wait_for(SLOW)
        return Presence((Present(f"device-{self._number}", 0.0),))


class Clock:
    """A second for each time that someone looks who has answered."""

    def __init__(self) -> None:
        self.now = 0.0
        self._news = threading.Condition()

    def pass_by(self, seconds: float = 1.0) -> None:
        with self._news:
            self.now += seconds
            self._news.notify_all()

    def wait_for(self, seconds: float) -> None:
        with self._news:
            until = self.now + seconds
            self._news.wait_for(lambda: self.now >= until, 20)


@pytest.mark.parametrize(("link", "back"), [("grpc", False), ("flower", True)])
def test_edge_that_was_away_has_as_long_to_answer_as_its_link_takes(
    monkeypatch: pytest.MonkeyPatch, link: str, back: bool
) -> None:
    clock, mustered = Clock(), list[set[str]]()
    monkeypatch.setattr(module, "monotonic", lambda: clock.now)
    monkeypatch.setattr(module, "sleep", lambda seconds: clock.pass_by(10 * seconds))
    edges = {f"edge-{number}": Edge(number, clock) for number in range(2)}
    musterer = SimpleNamespace(
        muster=lambda round_, found, *_: mustered.append(set(found)),
        assignment=dict,
        placed={"device-0": "edge-0", "device-1": "edge-1"},
    )
    config = load_config(
        None, ["federation.edges=2", "federation.devices=2", f"deploy.link={link}"]
    )
    side: Any = SimpleNamespace(
        config=config, edges=list(edges), musterer=musterer, cloud=SimpleNamespace(round=0)
    )
    watch: Any = SimpleNamespace(tick=clock.pass_by)
    asking = Asking(edges)
    calls = RollCalls(side, asking, watch)
    edges["edge-1"].away = True
    calls.gather()
    edges["edge-1"].away, edges["edge-1"].slow = False, True
    calls.gather()
    clock.pass_by(100)
    asking.close()
    assert mustered == [{"device-0"}, {"device-0", "device-1"} if back else {"device-0"}]

"""Pings: the median is the way, the quickest tells the clocks apart, and who is out is left out."""

import logging
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsa.engine.deploy.reach import PINGS, measure, nearest, survey
from elsa.errors import LinkError, ProtocolError, UntrustedError
from elsa.wire.messages import Message
from elsa.wire.places import Clock, Ping, Route


class Far:
    """A link to an edge so many seconds away, whose clock is so far ahead."""

    def __init__(self, there: list[float], back: list[float], ahead: float) -> None:
        self._ways = list(zip([1.0, *there], [1.0, *back], strict=True))
        self._ahead = ahead
        self.now = 1e9

    def call(self, request: Message) -> Message:
        assert request == Ping()
        there, back = self._ways.pop(0)
        self.now += there
        clock = Clock(round((self.now + self._ahead) * 1e6))
        self.now += back
        return clock


ways = st.lists(st.floats(1e-4, 2.0), min_size=PINGS, max_size=PINGS)


@settings(deadline=None)
@given(ways, ways, st.floats(-1e5, 1e5))
def test_clocks_are_told_apart_to_half_of_the_quickest_ping(
    there: list[float], back: list[float], ahead: float
) -> None:
    logging.disable(logging.WARNING)
    try:
        link = Far(there, back, ahead)
        route = measure("edge-1", link, lambda: link.now, lambda: link.now)
    finally:
        logging.disable(logging.NOTSET)
    took = sorted(a + b for a, b in zip(there, back, strict=True))
    assert route.edge == "edge-1"
    assert route.seconds == pytest.approx(took[PINGS // 2], abs=1e-5)
    assert abs(route.ahead - ahead) <= took[0] / 2 + 1e-5


@pytest.mark.parametrize(("ahead", "says"), [(-61.0, "behind"), (61.0, "ahead of"), (59.0, "")])
def test_clock_that_is_wrong_is_said(
    ahead: float, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    link = Far([0.1] * PINGS, [0.1] * PINGS, ahead)
    measure("edge-1", link, lambda: link.now, lambda: link.now)
    assert (f"61 s {says} this machine's" in caplog.text) == bool(says)


class Real:
    """A link that can be closed, to an edge that answers or does not."""

    def __init__(self, error: Exception | None, closed: list[str], name: str) -> None:
        self._error, self._closed, self._name = error, closed, name

    def call(self, request: Message) -> Message:
        if self._error:
            raise self._error
        return Clock(0)

    def close(self) -> None:
        self._closed.append(self._name)


def links(closed: list[str], **errors: Exception | None) -> dict[str, Callable[[], Real]]:
    return {name: lambda it=it, name=name: Real(it, closed, name) for name, it in errors.items()}


def test_edges_out_of_reach_are_left_out_and_every_link_is_closed() -> None:
    closed: list[str] = []
    found = survey(links(closed, a=LinkError("gone"), b=None, c=ProtocolError("not let in")))
    assert found.keys() == {"b"}
    assert closed == ["a", "b", "c"]


@pytest.mark.parametrize("error", [ProtocolError("not let in"), UntrustedError("revoked: stolen")])
def test_device_that_has_nobody_else_to_go_to_is_told_why(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        survey(links([], a=LinkError("gone"), c=error))
    assert survey(links([], b=None, c=error)).keys() == {"b"}
    assert survey(links([], a=LinkError("gone"))) == {}


def test_wanted_edge_if_it_answers_else_the_nearest() -> None:
    routes = {name: Route(name, seconds, 0.0) for name, seconds in (("a", 3.0), ("b", 1.0))}
    assert nearest(routes, "a") == "a"
    assert nearest(routes, "c") == "b"
    assert nearest({}, "a") == ""

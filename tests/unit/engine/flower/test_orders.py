"""Jobs on their way: each gets its answer however often it is lost, or an error in bounded time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest

from elsa.engine.flower import orders as module
from elsa.engine.flower.door import Caller, Head
from elsa.engine.flower.orders import FlowerLink, Orders
from elsa.errors import LinkError
from elsa.wire.messages import Accepted, Next
from elsa.wire.places import RollCall
from elsa.wire.serde import encode
from elsa.wire.transport import Link

LIMIT = 1000
DONE = encode(Accepted())


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orders]:
    monkeypatch.setattr(module, "_HOLD", 0.02)
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    made = Orders(tmp_path / "door", LIMIT)
    yield made
    made.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


def link(orders: Orders, *, seconds: float = 30, patience: float = 30) -> FlowerLink:
    there = Link("edge_cloud", "edge-0", "cloud")
    return FlowerLink(orders, there, (), seconds=seconds, patience=patience)


def fetch(app: Caller) -> tuple[Head, bytes]:
    """The next job, as a ServerApp gets it."""
    until = monotonic() + 20
    while monotonic() < until:
        head, frame = app.ask({"say": "next"})
        if "job" in head:
            return head, frame
    raise AssertionError("no job came")


def test_what_a_lost_serverapp_had_sent_goes_again_under_its_name(
    orders: Orders, pool: ThreadPoolExecutor
) -> None:
    coming = pool.submit(link(orders).call, Next())
    with Caller(str(orders.door.path)) as app:
        first, frame = fetch(app)
    with Caller(str(orders.door.path)) as app:
        again, same = fetch(app)
        assert (again["request"], again["edge"], same) == (first["request"], "edge-0", frame)
        assert 0 < again["seconds"] <= first["seconds"] <= 30
        app.ask({"say": "answer", "job": again["job"]}, DONE)
        assert coming.result(20) == Accepted()


def test_a_late_answer_to_an_earlier_sending_is_nobodys(
    orders: Orders, pool: ThreadPoolExecutor
) -> None:
    coming = pool.submit(link(orders).call, Next())
    with Caller(str(orders.door.path)) as app:
        first, _ = fetch(app)
        app.ask({"say": "failed", "job": first["job"], "reason": "the node is away"})
        again, _ = fetch(app)
        app.ask({"say": "answer", "job": first["job"]}, b"of the first sending")
        assert not coming.done()
        app.ask({"say": "answer", "job": again["job"]}, DONE)
        assert coming.result(20) == Accepted()


@pytest.mark.parametrize("answer", [b"", bytes(LIMIT + 1)])
def test_what_cannot_be_brought_there_ends_after_patience_and_says_why(
    orders: Orders, pool: ThreadPoolExecutor, answer: bytes
) -> None:
    coming = pool.submit(link(orders, patience=0.2).call, Next())
    with Caller(str(orders.door.path)) as app:
        while not coming.done():
            head, _ = app.ask({"say": "next"})
            if "job" in head and answer:
                app.ask({"say": "answer", "job": head["job"]}, answer)
            elif "job" in head:
                app.ask({"say": "failed", "job": head["job"], "reason": "the node is away"})
    with pytest.raises(LinkError, match="the node is away" if not answer else "1001 bytes"):
        coming.result()


def test_without_a_serverapp_the_deadline_ends_it(orders: Orders) -> None:
    with pytest.raises(LinkError, match="edge-0"):
        link(orders, seconds=0.2).call(Next())


def test_a_request_made_again_after_it_got_no_answer_is_another(
    orders: Orders, pool: ThreadPoolExecutor
) -> None:
    there = link(orders, seconds=0.3)
    names = []
    with Caller(str(orders.door.path)) as app:
        for _ in range(2):
            coming = pool.submit(there.call, RollCall(()))
            names.append(fetch(app)[0]["request"])
            with pytest.raises(LinkError):
                coming.result(20)
    assert names[0] != names[1]


def test_closing_ends_those_who_wait_and_the_serverapp(
    orders: Orders, pool: ThreadPoolExecutor
) -> None:
    with Caller(str(orders.door.path)) as app:
        coming = pool.submit(link(orders).call, Next())
        fetch(app)
        orders.close()
        with pytest.raises(LinkError):
            coming.result(20)
        assert app.ask({"say": "next"})[0] == {"end": True}

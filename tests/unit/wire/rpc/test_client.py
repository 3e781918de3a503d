"""A link that breaks: it comes back, nothing is computed twice, and nobody waits for ever."""

import socket
import threading
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any

import pytest

from elsa.errors import ConfigError, LinkError, ProtocolError
from elsa.wire.messages import Accepted, Message, Ready, Resend
from elsa.wire.rpc.client import Rpc
from elsa.wire.rpc.options import Timing
from elsa.wire.rpc.security import Loopback
from elsa.wire.rpc.server import RpcServer, Watch
from elsa.wire.transport import Handler, Link

LINK = Link("device_edge", "device-0", "edge-0")
QUICK = Timing(answer=20, reconnect=5, first_pause=0.01, longest_pause=0.05)

Join = Callable[..., Rpc]


@pytest.fixture
def join() -> Iterator[Join]:
    """Makes links to an address; closed after the test."""
    made: list[Rpc] = []

    def make(address: str, timing: Timing = QUICK, link: Link = LINK) -> Rpc:
        made.append(Rpc(address, link, Loopback(link.caller), timing=timing))
        return made[-1]

    yield make
    for each in made:
        each.close()


def serving(
    handler: Handler, watch: Watch | None = None, address: str = "127.0.0.1:0", ahead: int = 1
) -> RpcServer:
    callers, me = ["device-0"], Loopback("edge-0")
    return RpcServer(handler, address, me, callers=callers, watch=watch, ahead=ahead)


def test_cut_stream_is_resumed_and_every_request_computed_once(join: Join, relay: Any) -> None:
    relays: list[Any] = []
    computed: list[int] = []

    def handler(_: str, request: Message) -> Message:
        assert isinstance(request, Ready)
        computed.append(request.round)
        if request.round % 3 == 0:
            relays[0].cut()  # before the answer is on its way
        return Resend(request.round)

    with serving(handler) as server:
        relays.append(relay(server.address))
        link = join(relays[0].address)
        for number in range(30):
            assert link.call(Ready(number, 0, 1, 1)) == Resend(number)
            if number % 4 == 0:
                relays[0].cut()  # between requests
    assert computed == list(range(30))
    assert relays[0].connections > 10


def test_what_was_sent_ahead_of_a_cut_is_computed_once_and_answered_in_order(
    join: Join, relay: Any
) -> None:
    relays: list[Any] = []
    computed: list[int] = []

    def handler(_: str, request: Message) -> Message:
        assert isinstance(request, Ready)
        computed.append(request.round)
        if request.round % 4 == 1:
            relays[0].cut()
        return Resend(request.round)

    with serving(handler, ahead=3) as server:
        relays.append(relay(server.address))
        link, heard = join(relays[0].address), []
        for number in range(30):
            link.send(Ready(number, 0, 1, 1))
            if number >= 2:  # three are without an answer
                heard.append(link.receive())
        heard += [link.receive(), link.receive()]
    assert computed == list(range(30))
    assert heard == [Resend(number) for number in range(30)]
    assert relays[0].connections > 5


def test_stream_that_breaks_while_its_request_is_computed_gets_the_answer_later(
    join: Join, relay: Any
) -> None:
    relays: list[Any] = []
    computed: list[Message] = []

    def handler(_: str, request: Message) -> Message:
        computed.append(request)
        relays[0].cut()
        sleep(0.3)  # the caller is back long before
        return Resend(7)

    with serving(handler) as server:
        relays.append(relay(server.address))
        assert join(relays[0].address).call(Accepted()) == Resend(7)
    assert len(computed) == 1


def test_watcher_is_told_who_comes_and_goes(join: Join, relay: Any) -> None:
    relays: list[Any] = []
    told: list[str] = []
    left = threading.Event()

    def gone(peer: str) -> None:
        told.append(f"left {peer}")
        left.set()

    watch = Watch(
        began=lambda peer: told.append(f"began {peer}"),
        back=lambda peer: told.append(f"back {peer}"),
        left=gone,
    )
    with serving(lambda *_: Accepted(), watch) as server:
        relays.append(relay(server.address))
        link = join(relays[0].address)
        link.call(Accepted())
        relays[0].cut()
        assert left.wait(5)
        link.call(Accepted())
        link.close()
    assert told[:3] == ["began device-0", "left device-0", "back device-0"]


def test_frozen_server_costs_no_more_than_the_deadline(join: Join, relay: Any) -> None:
    relays: list[Any] = []
    with serving(lambda *_: Accepted()) as server:
        relays.append(relay(server.address))
        link = join(relays[0].address, Timing(0.5, 0.3, 0.01, 0.05))
        link.call(Accepted())
        relays[0].stall()
        began = monotonic()
        with pytest.raises(LinkError, match="edge-0 at"):
            link.call(Accepted())
        assert monotonic() - began < 10  # a hang would be the break; the bound itself is not timed
        relays[0].flow()
        assert link.call(Accepted()) == Accepted()  # in a new session


def test_server_that_is_not_there(join: Join) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(LinkError, match=address):
        join(address, Timing(5, 0.2, 0.01, 0.05)).call(Accepted())


def test_restarted_server_ends_the_session_and_a_new_one_begins(join: Join) -> None:
    with serving(lambda *_: Accepted()) as server:
        link = join(server.address)
        link.call(Accepted())
    with serving(lambda *_: Resend(1), address=server.address):
        with pytest.raises(LinkError, match="not known here"):
            link.call(Accepted())
        assert link.call(Accepted()) == Resend(1)


def test_unknown_caller_is_not_let_in(join: Join) -> None:
    with (
        serving(lambda *_: Accepted()) as server,
        pytest.raises(ProtocolError, match="does not let device-9 in: 'device-9' is none"),
    ):
        join(server.address, link=Link("device_edge", "device-9", "edge-0")).call(Accepted())


@pytest.mark.parametrize("token", ["", "stale"])
def test_stolen_number_without_the_token_is_no_way_into_a_session(join: Join, token: str) -> None:
    told: list[str] = []
    with serving(lambda *_: Accepted(), Watch(began=told.append)) as server:
        honest, thief = join(server.address), join(server.address)
        honest.call(Accepted())
        thief._number, thief._token = 1, token
        with pytest.raises(LinkError, match=r"token|goes on with request 1; 0 is due"):
            thief.call(Accepted())
        assert honest.call(Accepted()) == Accepted()
    assert told == ["device-0"]


def test_caller_that_comes_twice_has_one_session(join: Join) -> None:
    told: list[str] = []
    with serving(lambda *_: Accepted(), Watch(began=told.append)) as server:
        first, second = join(server.address), join(server.address)
        first.call(Accepted())
        assert second.call(Accepted()) == Accepted()
        with pytest.raises(LinkError):
            first.call(Accepted())
        assert second.call(Accepted()) == Accepted()
    assert told == ["device-0", "device-0"]


@pytest.mark.parametrize("address", ["10.0.0.4:7001", "0.0.0.0:7001", "example.org:1", "::2:1"])
def test_plaintext_is_for_loopback_only(address: str) -> None:
    with pytest.raises(ConfigError, match="may do without TLS"):
        Rpc(address, LINK, Loopback("device-0"))


@pytest.mark.parametrize("address", ["", "host", "host:", ":7001", "host:65536", "host:http"])
def test_address_that_is_none(address: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        Rpc(address, LINK, Loopback("device-0"))


def test_address_in_use_is_said(join: Join) -> None:
    with serving(lambda *_: Accepted()) as server, pytest.raises(ConfigError, match="in use"):
        serving(lambda *_: Accepted(), address=server.address)


def test_closed_link_frees_whoever_waits_for_an_answer(join: Join) -> None:
    going, begun, failed = threading.Event(), threading.Event(), []

    def handler(*_: object) -> Message:
        begun.set()
        assert going.wait(20)
        return Accepted()

    with serving(handler) as server:
        link = join(server.address)

        def ask() -> None:
            try:
                link.call(Accepted())
            except LinkError as error:
                failed.append(error)

        waiting = threading.Thread(target=ask)
        waiting.start()
        assert begun.wait(20)
        link.close()
        waiting.join(10)
        going.set()
        assert len(failed) == 1
        with pytest.raises(LinkError, match="closed here"):
            link.call(Accepted())

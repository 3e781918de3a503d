"""What every transport must do; a new one only adds its factory to `serve`."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from elsa import errors
from elsa.core.codec import Frame, Identity
from elsa.engine.flower.door import Caller
from elsa.engine.flower.edge import Entry
from elsa.engine.flower.orders import FlowerLink, Orders
from elsa.errors import ElsaError, FrameError, Interrupted, ProtocolError, WireError
from elsa.wire.checks import FRAME_LIMIT
from elsa.wire.inprocess import InProcess
from elsa.wire.layers import Fault, Tap, corrupt
from elsa.wire.messages import (
    Accepted,
    Activations,
    DeviceReport,
    DeviceScore,
    EdgeScores,
    EdgeUpdate,
    EvaluationOrder,
    Gradients,
    LocalPlan,
    Message,
    Next,
    Ready,
    Refusal,
    Register,
    Resend,
    RoundOrder,
    Score,
    Task,
    Update,
    Welcome,
)
from elsa.wire.places import Clock, Move, Ping, Presence, Present, RollCall, Route
from elsa.wire.rpc.authority import Party, issue, make_authority
from elsa.wire.rpc.client import Rpc
from elsa.wire.rpc.options import Timing
from elsa.wire.rpc.security import Loopback, Security, Tls
from elsa.wire.rpc.server import RpcServer, Watch
from elsa.wire.serde import encode
from elsa.wire.transport import Handler, Layer, Link, Transport

Refused = Callable[[str, str], None]
Connect = Callable[[Link, Sequence[Layer]], Transport]
Serve = Callable[[Handler, Refused | None], AbstractContextManager[Connect]]


def in_process(handler: Handler, refused: Refused | None) -> AbstractContextManager[Connect]:
    return nullcontext(lambda link, layers: InProcess(handler, link, layers, refused))


@contextmanager
def over_grpc(
    secure: Callable[[str], Security], handler: Handler, refused: Refused | None
) -> Iterator[Connect]:
    watch = Watch() if refused is None else Watch(refused=refused)
    links: list[Rpc] = []

    def connect(link: Link, layers: Sequence[Layer]) -> Transport:
        links.append(Rpc(server.address, link, secure(link.caller), layers, timing=Timing(20, 5)))
        return links[-1]

    with RpcServer(handler, "127.0.0.1:0", secure("edge-0"), watch=watch, ahead=3) as server:
        yield connect
        for link in links:
            link.close()


@contextmanager
def through_doors(handler: Handler, refused: Refused | None) -> Iterator[Connect]:
    """The way over Flower without Flower: a thread carries from one door to the other."""
    ends: dict[str, Entry] = {}

    def connect(link: Link, layers: Sequence[Layer]) -> Transport:
        told = refused or (lambda *_: None)
        ends[link.below] = Entry(link.caller, handler, FRAME_LIMIT, told)
        return FlowerLink(orders, link, layers, seconds=20, patience=5)

    def carry() -> None:
        with Caller(str(orders.door.path)) as app:
            while not (head := app.ask({"say": "next"}))[0].get("end"):
                if "job" in head[0]:
                    _, answer = ends[head[0]["edge"]].answer(head[0], head[1])
                    app.ask({"say": "answer", "job": head[0]["job"]}, answer)

    with TemporaryDirectory() as folder:
        orders = Orders(Path(folder) / "door", FRAME_LIMIT)
        carrier = threading.Thread(target=carry)
        carrier.start()
        yield connect
        orders.close()
        carrier.join()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_authority(folder)
    issue(folder, Party("edge-0", "edge", ("127.0.0.1",)), 1)
    issue(folder, Party("cloud", "cloud"), 1)
    for name in ("device-0", "device-1", "device-7", "0", "1", "2", "3"):
        issue(folder, Party(name, "device"), 1)
    return folder


@pytest.fixture(
    params=["in process", "gRPC on loopback", "gRPC with mutual TLS", "doors to Flower"]
)
def serve(request: pytest.FixtureRequest, certificates: Path) -> Serve:
    """Starts a server of the transport under test; within it, links to it can be made."""
    if request.param == "in process":
        return in_process
    if request.param == "doors to Flower":
        return through_doors
    return partial(
        over_grpc, Loopback if "loopback" in request.param else partial(Tls, certificates)
    )


def device(name: str = "device-0") -> Link:
    return Link("device_edge", name, "edge-0")


STATES = Identity().encode(torch.randn(3, 4), Frame((2, 1)))
ADAPTERS = {"layers.0.lora_A.weight": torch.randn(2, 4), "head": torch.randn(3).bfloat16()}
SENT = [
    Register({"model.precision": "float32", "model.task": "classification"}),
    Welcome({"h1": torch.eye(3)}),
    Next(),
    Task("train", 1, 2),
    Task("move", 0, 0, "edge-1"),
    Ping(),
    Clock(1_700_000_000_000_000),
    RollCall((Move("device-0", "edge-1"),)),
    Presence((Present("device-0", 0.5, (Route("edge-1", 0.1, -0.2),)),)),
    Ready(1, 2, 3, 0),
    LocalPlan(1, 2, 5, 9, ADAPTERS),
    Activations(4, True, (2, 1), STATES),
    Gradients(4, STATES),
    Update(1, 2, ADAPTERS, 10, 20, 0.1),
    Score(1, 10, 7, 0.1),
    Accepted(),
    RoundOrder(1, 2, 5, ("device-0", "device-1"), ADAPTERS),
    EdgeUpdate(1, ADAPTERS, 10.0, (DeviceReport("device-0", 10, 20, 0.1, "too late"),)),
    EvaluationOrder(1, ("device-0",), ADAPTERS),
    EdgeScores(1, (DeviceScore("device-0", 10, 7, 0.1),)),
]
RAISED = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ElsaError) and kind is not Interrupted
]


@pytest.mark.parametrize("message", SENT, ids=lambda message: type(message).__name__)
def test_message_arrives_equal_both_ways(serve: Serve, message: Message) -> None:
    # Frames are exact and deterministic (unit tests), so equal frames are equal messages.
    arrived: list[Message] = []

    def handler(peer: str, request: Message) -> Message:
        arrived.append(request)
        return message

    with serve(handler, None) as connect:
        answer = connect(device(), ()).call(message)
    assert answer is not message
    assert type(answer) is type(arrived[0]) is type(message)
    assert encode(answer) == encode(arrived[0]) == encode(message)


def test_handler_is_told_who_asks(serve: Serve) -> None:
    names: list[str] = []

    def handler(peer: str, request: Message) -> Message:
        names.append(peer)
        return Accepted()

    with serve(handler, None) as connect:
        connect(device("device-7"), ()).call(Accepted())
        connect(Link("edge_cloud", "edge-0", "cloud"), ()).call(Accepted())
    assert names == ["device-7", "cloud"]


def refusing(error: BaseException) -> Handler:
    """A handler that raises `error` to device-0 and accepts from all others."""

    def handler(peer: str, request: Message) -> Message:
        if peer == "device-0":
            raise error
        return Accepted()

    return handler


@pytest.mark.parametrize("kind", RAISED)
def test_error_reaches_the_caller_as_it_is_and_spares_the_others(
    serve: Serve, kind: type[ElsaError]
) -> None:
    told: list[tuple[str, str]] = []
    with serve(refusing(kind("the reason")), lambda *what: told.append(what)) as connect:
        with pytest.raises(ElsaError) as caught:
            connect(device(), ()).call(Accepted())
        assert type(caught.value) is kind
        assert str(caught.value) == "the reason"
        assert connect(device("device-1"), ()).call(Accepted()) == Accepted()
    assert told == [("device-0", f"{kind.__name__}: the reason")]


def test_error_of_a_private_class_reaches_the_caller_as_its_public_base(serve: Serve) -> None:
    class PrivateError(ProtocolError):
        pass

    with (
        serve(refusing(PrivateError("why")), None) as connect,
        pytest.raises(ProtocolError, match="why"),
    ):
        connect(device(), ()).call(Accepted())


def test_reason_unfit_for_a_frame_is_made_fit(serve: Serve) -> None:
    with (
        serve(refusing(ProtocolError("\x1b[2J" + "x" * 10_000)), None) as connect,
        pytest.raises(ProtocolError, match=r"^ \[2Jx{4092}$"),
    ):
        connect(device(), ()).call(Accepted())


def test_unexpected_error_is_logged_and_tells_the_peer_nothing(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.ERROR, "elsa.wire"),
        serve(refusing(KeyError("secret")), None) as connect,
    ):
        with pytest.raises(WireError, match="internal error") as caught:
            connect(device(), ()).call(Accepted())
        assert connect(device("device-1"), ()).call(Accepted()) == Accepted()
    assert "secret" not in str(caught.value)
    assert "secret" in caplog.text


def test_bad_frame_is_refused_and_ends_only_that_session(serve: Serve) -> None:
    told: list[str] = []
    seen: list[str] = []

    def handler(peer: str, request: Message) -> Message:
        seen.append(peer)
        return Accepted()

    with serve(handler, lambda peer, reason: told.append(peer)) as connect:
        with pytest.raises(FrameError):
            connect(device(), [Fault("device-0", 0, corrupt())]).call(Accepted())
        connect(device("device-1"), ()).call(Accepted())
    assert told == ["device-0"]
    assert seen == ["device-1"]


def test_answer_that_may_not_be_sent_is_refused(serve: Serve) -> None:
    with (
        serve(lambda *_: Score(0, 1, 2, 0.0), None) as connect,
        pytest.raises(FrameError, match=r"Score\.correct"),
    ):
        connect(device(), ()).call(Accepted())


@pytest.mark.parametrize("name", ["Interrupted", "SystemExit", "Exception"])
def test_peer_cannot_raise_what_is_no_answer(serve: Serve, name: str) -> None:
    # Interrupted would end this process as if the person here had asked for it.
    with (
        serve(lambda *_: Refusal(name, "stop"), None) as connect,
        pytest.raises(FrameError, match=f"unknown error '{name}'"),
    ):
        connect(device(), ()).call(Accepted())


def test_tensors_are_not_shared_between_the_sides(serve: Serve) -> None:
    held: dict[str, torch.Tensor] = {"a": torch.zeros(2)}
    arrived: list[torch.Tensor] = []

    def handler(peer: str, request: Message) -> Message:
        assert isinstance(request, Update)
        arrived.append(request.adapters["a"])
        return LocalPlan(0, 0, 1, 0, held)

    sent = torch.zeros(2)
    with serve(handler, None) as connect:
        answer = connect(device(), ()).call(Update(0, 0, {"a": sent}, 1, 1, 0.0))
    assert isinstance(answer, LocalPlan)
    sent += 1
    answer.adapters["a"].add_(2)
    assert arrived[0].tolist() == [0, 0]
    assert held["a"].tolist() == [0, 0]


def test_what_needs_gradients_can_be_sent_and_arrives_without(serve: Serve) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    with serve(lambda _, request: request, None) as connect:
        answer = connect(device(), ()).call(Update(0, 0, {"a": parameter}, 1, 1, 0.0))
    assert isinstance(answer, Update)
    assert not answer.adapters["a"].requires_grad


def test_concurrent_peers_get_their_own_answers(serve: Serve) -> None:
    peers, calls = 4, 20
    together = threading.Barrier(peers)
    wrong: list[str] = []

    def handler(peer: str, request: Message) -> Message:
        assert isinstance(request, Ready)
        return Refusal("ProtocolError", peer) if request.round % 2 else request

    def ask(name: str, transport: Transport) -> None:
        together.wait()
        for round_ in range(calls):
            request = Ready(round_, 0, int(name), 0)
            try:
                if transport.call(request) != request:
                    wrong.append(name)
            except ProtocolError as error:
                if str(error) != name:
                    wrong.append(name)

    with serve(handler, None) as connect:
        threads = [
            threading.Thread(target=ask, args=(str(n), connect(device(str(n)), ())))
            for n in range(peers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_answers_to_what_was_sent_ahead_come_in_its_order(serve: Serve) -> None:
    def handler(peer: str, request: Message) -> Message:
        assert isinstance(request, Ready)
        if request.round == 1:
            raise ProtocolError("not this one")
        return Resend(request.round)

    tap = Tap()
    with serve(handler, None) as connect:
        link = connect(device(), [tap])
        for number in range(3):
            link.send(Ready(number, 0, 1, 1))
        assert link.receive() == Resend(0)
        with pytest.raises(ProtocolError, match="not this one"):
            link.receive()
        assert link.receive() == Resend(2)
        for number in (3, 1):
            link.send(Ready(number, 0, 1, 1))
        assert link.call(Ready(4, 0, 1, 1)) == Resend(4)  # what was asked before is given up
    asked = [it for it in tap.frames if it.direction == "up"]
    assert [it.request for it in tap.frames if it.direction == "down"] == [
        it.message for it in asked
    ]
    assert [it.message.round for it in asked] == [0, 1, 2, 3, 1, 4]


def test_layers_see_what_the_transport_carries(serve: Serve) -> None:
    tap = Tap()
    request, answer = Ready(0, 0, 1, 1), LocalPlan(0, 0, 1, 0, {})
    with serve(lambda *_: answer, None) as connect:
        connect(device(), [tap]).call(request)
    assert [(passage.direction, passage.data) for passage in tap.frames] == [
        ("up", encode(request)),
        ("down", encode(answer)),
    ]

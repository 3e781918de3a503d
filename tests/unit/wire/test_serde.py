"""Messages to bytes and back: exact for what may be sent, FrameError for all else."""

from collections.abc import Mapping
from dataclasses import fields, replace
from math import inf, nan, prod
from typing import Any

import pytest
import torch
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.codec import Frame, Identity, Packet
from elsa.core.ragged import marks_of
from elsa.errors import FrameError
from elsa.wire.generated import elsa_pb2 as pb
from elsa.wire.messages import (
    Accepted,
    Activations,
    DeviceReport,
    DeviceScore,
    EdgeScores,
    EdgeUpdate,
    EvaluationOrder,
    Gradients,
    HeadWeight,
    LabelledActivations,
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
from elsa.wire.serde import PROTOCOL, decode, encode

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8)

uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+:@-]{0,20}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=("C", "Z")), max_size=30)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any bit pattern, NaNs with payloads included."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(1, 4), max_size=3))
    size = prod(shape) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    return torch.frombuffer(bytearray(raw), dtype=dtype).view(shape)


@st.composite
def packets(draw: st.DrawFn, rows: int | None = None) -> Packet:
    shape = (rows or draw(st.integers(1, 9)), draw(st.integers(1, 5)))
    return Packet(draw(names), draw(names), shape, draw(st.binary(max_size=300)))


@st.composite
def activations(draw: st.DrawFn) -> Activations:
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    packet = draw(packets(sum(lengths)))
    count = len(lengths) if draw(st.booleans()) else 0
    numbers = st.lists(st.integers(0, 2**63 - 1), min_size=count, max_size=count, unique=True)
    step, training = draw(uint32), draw(st.booleans())
    marks = draw(st.sampled_from((b"", marks_of(torch.ones(sum(lengths), dtype=torch.bool)))))
    ids = tuple(draw(numbers))
    return Activations(step, training, tuple(lengths), packet, ids, marks=marks)


@st.composite
def labelled(draw: st.DrawFn) -> LabelledActivations:
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    count = draw(st.sampled_from([len(lengths), sum(lengths)]))
    labels = draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=count, max_size=count))
    step, training, packet = draw(uint32), draw(st.booleans()), draw(packets(sum(lengths)))
    token = draw(st.just("") | names)
    return LabelledActivations(step, training, tuple(lengths), tuple(labels), packet, token)


@st.composite
def scores(draw: st.DrawFn, kind: Any, first: st.SearchStrategy[Any]) -> Any:
    items = draw(uint64)
    return kind(draw(first), items, draw(st.integers(0, items)), draw(finite))


adapters = st.dictionaries(names, tensors(), max_size=3)
devices = st.lists(names, max_size=4, unique=True).map(tuple)
reports = st.lists(
    st.builds(DeviceReport, names, uint64, uint64, finite, texts),
    max_size=3,
    unique_by=lambda report: report.device,
).map(tuple)
heads = st.lists(
    st.builds(HeadWeight, names, finite.map(abs)), max_size=3, unique_by=lambda head: head.head
).map(tuple)
device_scores = st.lists(
    scores(DeviceScore, names), max_size=3, unique_by=lambda score: score.device
).map(tuple)
routes = st.lists(
    st.builds(Route, names, finite.map(abs), finite), max_size=3, unique_by=lambda route: route.edge
).map(tuple)
moves = st.lists(st.builds(Move, names, names), max_size=3, unique_by=lambda move: move.device).map(
    tuple
)
present = st.lists(
    st.builds(Present, names, finite.map(abs), routes), max_size=3, unique_by=lambda it: it.device
).map(tuple)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Register, st.dictionaries(names, texts, max_size=3), routes),
    st.builds(Welcome, adapters),
    st.just(Next()),
    st.builds(Task, names, uint32, uint32, st.just("") | names),
    st.builds(
        Ready,
        uint32,
        uint32,
        uint32,
        uint32,
        rank=uint32,
        head=st.just("") | names,
        labelled=st.booleans(),
    ),
    st.builds(LocalPlan, uint32, uint32, uint32, uint32, adapters, token=st.just("") | names),
    activations(),
    labelled(),
    st.builds(Gradients, uint32, packets(), finite, micro_batch=uint32),
    st.builds(Resend, uint32, micro_batch=uint32),
    st.builds(Update, uint32, uint32, adapters, uint64, uint64, finite),
    scores(Score, uint32),
    st.just(Accepted()),
    st.builds(Refusal, names, texts),
    st.builds(RoundOrder, uint32, uint32, uint32, devices, adapters),
    st.builds(EdgeUpdate, uint32, adapters, finite.map(abs), reports, heads),
    st.builds(EvaluationOrder, uint32, devices, adapters),
    st.builds(EdgeScores, uint32, device_scores),
    st.just(Ping()),
    st.builds(Clock, uint64),
    st.builds(RollCall, moves),
    st.builds(Presence, present),
)


def bits(value: object) -> object:
    """A value that compares bitwise: tensors as dtype, shape and bytes, mappings in order."""
    if isinstance(value, Tensor):
        return value.dtype, value.shape, value.reshape(-1).view(torch.uint8).tolist()
    if isinstance(value, Mapping):
        return [(name, bits(item)) for name, item in value.items()]
    if isinstance(value, float):
        return value.hex()
    return value


def same(left: Message, right: Message) -> bool:
    return type(left) is type(right) and all(
        bits(getattr(left, field.name)) == bits(getattr(right, field.name))
        for field in fields(left)
    )


@settings(deadline=None)
@given(messages)
def test_round_trip_is_exact(message: Message) -> None:
    assert same(decode(encode(message)), message)


@settings(deadline=None)
@given(messages)
def test_frame_is_a_protobuf_envelope(message: Message) -> None:
    # A peer without our framing reads the same: the payload put behind is a proper field.
    envelope = pb.Envelope.FromString(encode(message))
    assert envelope.protocol == PROTOCOL
    packet = getattr(message, "packet", None)
    assert envelope.payload == (packet.payload if packet else b"")


@settings(deadline=None)
@given(messages)
def test_frame_written_by_plain_protobuf_is_read(message: Message) -> None:
    # Field order is free in protobuf: here the payload comes first.
    envelope = pb.Envelope.FromString(encode(message))
    payload = pb.Envelope(payload=envelope.payload).SerializeToString()
    envelope.ClearField("payload")
    assert same(decode(payload + envelope.SerializeToString()), message)


@settings(deadline=None)
@given(messages)
def test_encoding_is_deterministic(message: Message) -> None:
    assert encode(message) == encode(decode(encode(message)))


def accepted_or_frame_error(data: bytes) -> None:
    try:
        message = decode(data)
    except FrameError:
        return
    encode(message)  # what is let in may also be sent


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_a_message_or_a_frame_error(data: bytes) -> None:
    accepted_or_frame_error(data)


@settings(deadline=None)
@given(st.data(), messages)
def test_truncated_frame_is_refused(data: st.DataObject, message: Message) -> None:
    frame = encode(message)
    kept = frame[: data.draw(st.integers(0, len(frame) - 1))]
    if _is_whole(kept):
        accepted_or_frame_error(kept)  # cut exactly between two fields of the envelope
    else:
        with pytest.raises(FrameError):
            decode(kept)


def _is_whole(data: bytes) -> bool:
    try:
        return pb.Envelope.FromString(data).WhichOneof("body") is not None
    except DecodeError:
        return False


@settings(deadline=None)
@given(st.data(), messages)
def test_mutated_frame_is_a_message_or_a_frame_error(data: st.DataObject, message: Message) -> None:
    frame = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        if not frame:
            break
    accepted_or_frame_error(bytes(frame))


PACKET = Identity().encode(torch.zeros(3, 2), Frame((2, 1)))
ACTIVATIONS = Activations(0, True, (2, 1), PACKET)
LABELLED = LabelledActivations(0, True, (2, 1), (0, 1), PACKET)
UPDATE = Update(0, 0, {"a": torch.zeros(2)}, 1, 1, 0.5)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (replace(UPDATE, loss=nan), "Update.loss = nan"),
        (replace(UPDATE, loss=inf), "Update.loss = inf"),
        (replace(UPDATE, rows=-1), "Update.rows = -1"),
        (replace(UPDATE, round=2**32), "Update.round = 4294967296"),
        (replace(UPDATE, adapters={"a b": torch.zeros(1)}), "'a b' is not a name"),
        (replace(UPDATE, adapters={"../a": torch.zeros(1)}), "is not a name"),
        (replace(UPDATE, adapters={"a\n": torch.zeros(1)}), "is not a name"),
        (replace(UPDATE, adapters={"a": torch.zeros(0)}), "shape"),
        (replace(UPDATE, adapters={"a": torch.zeros(1, dtype=torch.bool)}), "tensor 'a'"),
        (replace(UPDATE, adapters={"a": torch.zeros(1).expand(2**28 + 1)}), "over the limit"),
        (
            replace(UPDATE, adapters={n: torch.zeros(1).expand(2**28) for n in "abc"}),
            "over the limit",
        ),
        (replace(ACTIVATIONS, lengths=(2, 2)), "sum to 4 tokens, but the packet holds 3"),
        (replace(ACTIVATIONS, lengths=()), "Activations.lengths"),
        (replace(ACTIVATIONS, lengths=(3, 0)), "Activations.lengths"),
        (replace(ACTIVATIONS, packet=replace(PACKET, shape=(3,))), "hidden size"),
        (replace(ACTIVATIONS, packet=replace(PACKET, shape=(3, 0))), "shape"),
        (replace(ACTIVATIONS, packet=replace(PACKET, shape=(3, 2**27))), "over the limit"),
        (replace(ACTIVATIONS, packet=replace(PACKET, codec="a b")), "packet.codec"),
        (replace(ACTIVATIONS, packet=replace(PACKET, dtype="")), "packet.dtype"),
        (replace(LABELLED, labels=(1,)), "labels: 1 for 2 sequences of 3 tokens"),
        (replace(LABELLED, labels=(1, 2**31)), "labels: one is outside"),
        (replace(LABELLED, lengths=(2, 2)), "sum to 4 tokens"),
        (Gradients(0, PACKET, nan), "Gradients.loss = nan"),
        (Refusal("", "why"), "Refusal.error"),
        (Refusal("WireError", "\x1b[31m"), "Refusal.reason"),
        (Refusal("WireError", "x" * 5000), "Refusal.reason"),
        (RoundOrder(0, 1, 1, ("a", "a"), {}), "'a' is there more than once"),
        (EdgeUpdate(0, {}, -1.0, ()), "EdgeUpdate.weight = -1.0"),
        (EdgeUpdate(0, {}, 1.0, (DeviceReport("a", 1, 1, nan),)), "DeviceReport.loss = nan"),
        (EdgeUpdate(0, {}, 1.0, (DeviceReport("a", 1, 1, 0.0),) * 2), "more than once"),
        (EdgeUpdate(0, {}, 1.0, (), (HeadWeight("x", nan),)), "HeadWeight.weight = nan"),
        (EdgeUpdate(0, {}, 1.0, (), (HeadWeight("", 1.0),)), "EdgeUpdate.heads"),
        (EdgeUpdate(0, {}, 1.0, (), (HeadWeight("x", 1.0),) * 2), "'x' is there more than once"),
        (Ready(0, 0, 1, 1, head="a b"), "Ready.head"),
        (Register({}, (Route("e", nan, 0.0),)), "Route.seconds = nan"),
        (Register({}, (Route("e", -1.0, 0.0),)), "Route.seconds = -1.0"),
        (Register({}, (Route("e", 1.0, inf),)), "Route.ahead = inf"),
        (Register({}, (Route("", 1.0, 0.0),)), "Register.routes"),
        (Register({}, (Route("e", 1.0, 0.0),) * 2), "'e' is there more than once"),
        (Presence((Present("d", -1.0),)), "Present.silent = -1.0"),
        (RollCall((Move("d", "e"), Move("d", "f"))), "'d' is there more than once"),
        (replace(UPDATE, token="a b"), "Update.token"),
        (Score(0, 1, 2, 0.0), "Score.correct = 2 of 1"),
        (EdgeScores(0, (DeviceScore("a", 1, 2, 0.0),)), "DeviceScore.correct"),
    ],
)
def test_what_may_not_be_sent_is_refused_by_the_sender(message: Message, says: str) -> None:
    with pytest.raises(FrameError, match=says.replace("[", r"\[")):
        encode(message)


@pytest.mark.parametrize("marks", [b"\0", b"\1\0", b"\xff", b"\x01"])
def test_marks_of_tokens_must_fit_them(marks: bytes) -> None:
    with pytest.raises(FrameError, match="marks"):
        encode(replace(ACTIVATIONS, marks=marks))


@pytest.mark.parametrize("numbers", [(1,), (1, 1), (1, 2, 3), (-1, 2), (1, 2**63)])
def test_numbers_of_sequences_must_fit_them(numbers: tuple[int, ...]) -> None:
    with pytest.raises(FrameError, match="numbers"):
        encode(replace(ACTIVATIONS, numbers=numbers))


def test_padding_bomb_is_refused() -> None:
    # Few tokens, but padded to the longest they would take 2^29 values.
    lengths = (2**15, *[1] * 2**14)
    packet = Packet("any", "float32", (sum(lengths), 1), b"")
    with pytest.raises(FrameError, match="padded"):
        encode(Activations(0, True, lengths, packet))


def envelope(**body: object) -> pb.Envelope:
    return pb.Envelope(protocol=PROTOCOL, **body)  # type: ignore[arg-type]


TENSOR = pb.Tensor(name="a", dtype="float32", shape=[2], values=bytes(8))


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (pb.Envelope(), "version 0"),
        (pb.Envelope(protocol=2, accepted=pb.Accepted()), "version 2; this side speaks 1"),
        (envelope(), "without a message"),
        (envelope(accepted=pb.Accepted(), payload=b"x"), "Accepted with a payload"),
        (envelope(activations=pb.Activations(lengths=[1])), "its packet is missing"),
        (envelope(gradients=pb.Gradients()), "its packet is missing"),
        (envelope(gradients=pb.Gradients(packet=pb.Packet())), "codec"),
        (envelope(update=pb.Update(loss=nan)), "Update.loss = nan"),
        (envelope(update=pb.Update(adapters=[TENSOR, TENSOR])), "'a' is there more than once"),
        (envelope(update=pb.Update(adapters=[pb.Tensor(dtype="float32")])), "is not a name"),
        (
            envelope(update=pb.Update(adapters=[pb.Tensor(name="a", dtype="float99")])),
            "tensor 'a': .*float99",
        ),
        (
            envelope(update=pb.Update(adapters=[pb.Tensor(name="a", dtype="float32", shape=[2])])),
            "tensor 'a': identity: 0 bytes",
        ),
        (
            envelope(
                update=pb.Update(
                    adapters=[pb.Tensor(name="a", dtype="float32", shape=[2**32 - 1] * 4)]
                )
            ),
            "over the limit",
        ),
        (
            envelope(
                update=pb.Update(adapters=[pb.Tensor(name="a", dtype="uint8", shape=[1] * 9)])
            ),
            "up to 8 sizes",
        ),
    ],
)
def test_what_a_foreign_peer_may_not_send_is_refused(frame: pb.Envelope, says: str) -> None:
    with pytest.raises(FrameError, match=says):
        decode(frame.SerializeToString())


def test_oversized_frame_is_refused_unread() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 2**31

    with pytest.raises(FrameError, match="over the limit"):
        decode(Huge())


def test_decoded_tensors_own_their_memory() -> None:
    tensor = torch.ones(3)
    frame = encode(replace(UPDATE, adapters={"a": tensor}))
    first, second = decode(frame), decode(frame)
    assert isinstance(first, Update)
    assert isinstance(second, Update)
    first.adapters["a"].fill_(7.0)
    assert tensor.tolist() == second.adapters["a"].tolist() == [1.0, 1.0, 1.0]


def test_no_padding_and_little_else_is_sent() -> None:
    # Ragged: 3 tokens of 4 bytes x 2, not 2 x 2; the rest of the frame stays small.
    assert len(PACKET.payload) == 24
    assert len(encode(ACTIVATIONS)) < 24 + 50

"""Messages to bytes and back; nothing else knows the generated protobuf code.

A protobuf message and its dataclass have the same field names, so one loop serves them all.
"""

from dataclasses import fields
from typing import Any, get_args

from google.protobuf.message import DecodeError
from torch import Tensor

from elsa.core.codec import Frame, Identity, Packet
from elsa.errors import CodecError, FrameError
from elsa.wire.checks import check, check_name, check_names, check_shape, check_size
from elsa.wire.framing import join, split
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
    Row,
    Score,
    Task,
    Update,
    Welcome,
)
from elsa.wire.places import Clock, Move, Ping, Presence, Present, RollCall, Route
from elsa.wire.watching import Behaviours, DeviceBehaviour, DeviceVerdict, Verdicts

PROTOCOL = 1
"""Version of the protocol; both ends must speak the same."""

_KINDS: dict[str, type[Message]] = {
    "register": Register,
    "welcome": Welcome,
    "next": Next,
    "task": Task,
    "ready": Ready,
    "local_plan": LocalPlan,
    "activations": Activations,
    "resend": Resend,
    "gradients": Gradients,
    "update": Update,
    "accepted": Accepted,
    "refusal": Refusal,
    "round_order": RoundOrder,
    "edge_update": EdgeUpdate,
    "score": Score,
    "evaluation_order": EvaluationOrder,
    "edge_scores": EdgeScores,
    "behaviours": Behaviours,
    "verdicts": Verdicts,
    "labelled_activations": LabelledActivations,
    "ping": Ping,
    "clock": Clock,
    "roll_call": RollCall,
    "presence": Presence,
}
_BODIES = {kind: body for body, kind in _KINDS.items()}
assert set(_BODIES) == set(get_args(Message))
_WITH_PACKET = (Activations, LabelledActivations, Gradients)
_ROWS: dict[str, type[Row]] = {
    "reports": DeviceReport,
    "scores": DeviceScore,
    "heads": HeadWeight,
    "behaviours": DeviceBehaviour,
    "verdicts": DeviceVerdict,
    "routes": Route,
    "moves": Move,
    "present": Present,
}

_EXACT = Identity()
_NO_FRAME = Frame(lengths=())


def encode(message: Message) -> bytes:
    """The frame of `message`.

    Raises:
        FrameError: a value that may not be sent; `decode` would refuse it.
    """
    check(message)
    envelope = pb.Envelope(protocol=PROTOCOL)
    body = getattr(envelope, _BODIES[type(message)])
    body.SetInParent()
    _fill(body, message)
    frame: bytes = envelope.SerializeToString()
    if isinstance(message, _WITH_PACKET):
        frame = join(frame, message.packet.payload)
    check_size(len(frame))
    return frame


def decode(data: bytes) -> Message:
    """The message of a frame; its tensors own their memory.

    Raises:
        FrameError: the bytes are no frame, of another version, or hold a value not allowed.
    """
    check_size(len(data))
    head, payload = split(data)
    try:
        envelope = pb.Envelope.FromString(head)
    except DecodeError as error:
        raise FrameError(f"{len(data)} bytes that are no frame of elsa") from error
    if envelope.protocol != PROTOCOL:
        raise FrameError(
            f"frame of protocol version {envelope.protocol}; this side speaks {PROTOCOL}: "
            "both ends must run the same release of elsa"
        )
    body = envelope.WhichOneof("body")
    if body is None:
        raise FrameError("frame without a message")
    if payload is None:
        payload = envelope.payload
    if payload and _KINDS[body] not in _WITH_PACKET:
        raise FrameError(f"{_KINDS[body].__name__} with a payload, which belongs to a packet")
    message: Message = _read(_KINDS[body], getattr(envelope, body), payload)
    check(message)
    return message


def _fill(body: Any, message: Message | Row) -> None:
    for field in fields(message):
        value = getattr(message, field.name)
        match field.name:
            case "adapters" | "axes":
                check_size(sum(tensor.nbytes for tensor in value.values()))
                rows = getattr(body, field.name)
                for name, tensor in value.items():
                    _fill_tensor(rows.add(), name, tensor)
            case "terms":
                for name, text in value.items():
                    body.terms.add(name=name, value=text)
            case "packet":
                body.packet.codec = value.codec
                body.packet.dtype = value.dtype
                body.packet.shape.extend(value.shape)
            case name if name in _ROWS:
                rows = getattr(body, field.name)
                for row in value:
                    _fill(rows.add(), row)
            case "lengths" | "labels" | "numbers" | "devices":
                getattr(body, field.name).extend(value)
            case _:
                setattr(body, field.name, value)


def _read(kind: type[Any], body: Any, payload: bytes) -> Any:
    values: dict[str, Any] = {}
    for field in fields(kind):
        value = getattr(body, field.name)
        match field.name:
            case "adapters" | "axes":
                check_names(f"{kind.__name__}.{field.name}", [tensor.name for tensor in value])
                values[field.name] = {tensor.name: _read_tensor(tensor) for tensor in value}
            case "terms":
                check_names(f"{kind.__name__}.terms", [term.name for term in value])
                values["terms"] = {term.name: term.value for term in value}
            case "packet":
                if not body.HasField("packet"):
                    raise FrameError(f"{kind.__name__}: its packet is missing")
                values["packet"] = Packet(value.codec, value.dtype, tuple(value.shape), payload)
            case name if name in _ROWS:
                values[field.name] = tuple(_read(_ROWS[field.name], row, b"") for row in value)
            case "lengths" | "labels" | "numbers" | "devices":
                values[field.name] = tuple(value)
            case _:
                values[field.name] = value
    return kind(**values)


def _fill_tensor(field: pb.Tensor, name: str, tensor: Tensor) -> None:
    check_shape(name, tensor.shape)
    try:
        packet = _EXACT.encode(tensor, _NO_FRAME)
    except CodecError as error:
        raise FrameError(f"tensor '{name}': {error}") from error
    field.name = name
    field.dtype = packet.dtype
    field.shape.extend(packet.shape)
    field.values = packet.payload


def _read_tensor(field: pb.Tensor) -> Tensor:
    check_shape(field.name, field.shape)
    check_name(f"{field.name}.dtype", field.dtype)
    packet = Packet(_EXACT.name, field.dtype, tuple(field.shape), field.values)
    try:
        return _EXACT.decode(packet, _NO_FRAME)
    except CodecError as error:
        raise FrameError(f"tensor '{field.name}': {error}") from error

"""The .proto file, the committed code and the dataclasses say the same."""

from collections.abc import Iterator
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import get_args

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from elsa.core.codec import Packet
from elsa.wire.generated import elsa_pb2 as pb
from elsa.wire.messages import DeviceReport, DeviceScore, Message

PROTO = Path(__file__).parents[3] / "proto" / "elsa" / "v1"
PATH = "elsa/wire/generated/elsa.proto"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorProto:
    """What proto/elsa/v1/elsa.proto compiles to now, comments included."""
    out = tmp_path_factory.mktemp("proto") / "set"
    status = protoc.main(
        [
            "protoc",
            f"-I{Path(PATH).parent}={PROTO}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--descriptor_set_out={out}",
            "--include_source_info",
            PATH,
        ]
    )
    assert status == 0
    (file,) = FileDescriptorSet.FromString(out.read_bytes()).file
    return file


def test_committed_code_is_what_the_proto_compiles_to(compiled: FileDescriptorProto) -> None:
    now = FileDescriptorProto()
    now.CopyFrom(compiled)
    now.ClearField("source_code_info")
    for message in now.message_type:
        for field in message.field:
            field.ClearField("json_name")
    assert now == FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb), "run `make proto`"


def test_every_message_and_field_is_commented(compiled: FileDescriptorProto) -> None:
    commented = {
        tuple(where.path)
        for where in compiled.source_code_info.location
        if where.leading_comments.strip()
    }
    missing = [name for name, path in _parts(compiled) if path not in commented]
    assert not missing


def _parts(file: FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    messages_at = FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER
    fields_at = DescriptorProto.FIELD_FIELD_NUMBER
    for i, message in enumerate(file.message_type):
        yield message.name, (messages_at, i)
        for j, field in enumerate(message.field):
            yield f"{message.name}.{field.name}", (messages_at, i, fields_at, j)


@pytest.mark.parametrize("kind", [*get_args(Message), DeviceReport, DeviceScore])
def test_dataclass_and_proto_have_the_same_fields(kind: type) -> None:
    in_proto = [field.name for field in pb.DESCRIPTOR.message_types_by_name[kind.__name__].fields]
    assert in_proto == [field.name for field in fields(kind)]


def test_the_packet_travels_in_two_parts() -> None:
    header = [field.name for field in pb.Packet.DESCRIPTOR.fields]
    assert [*header, "payload"] == [field.name for field in fields(Packet)]


def test_every_message_has_its_place_in_the_envelope() -> None:
    bodies = {field.message_type.name for field in pb.Envelope.DESCRIPTOR.oneofs[0].fields}
    assert bodies == {kind.__name__ for kind in get_args(Message)}

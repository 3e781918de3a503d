"""The payload behind a protobuf frame: inverse, and never in the way of protobuf."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsa.wire.framing import join, split
from elsa.wire.generated import elsa_pb2 as pb

HEAD = pb.Envelope(protocol=1, gradients=pb.Gradients(step=300)).SerializeToString()


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_split_inverts_join(payload: bytes) -> None:
    assert split(join(HEAD, payload)) == (HEAD, payload)


@pytest.mark.parametrize("size", [1, 127, 128, 2**14 - 1, 2**14, 2**21])
def test_protobuf_reads_what_join_writes(size: int) -> None:
    # The sizes stand on both sides of where a varint grows by a byte.
    assert pb.Envelope.FromString(join(HEAD, bytes(size))).payload == bytes(size)


def test_nothing_to_join_leaves_the_head() -> None:
    assert join(HEAD, b"") == HEAD
    assert split(HEAD) == (HEAD, None)


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_split_loses_nothing_of_any_bytes(data: bytes) -> None:
    head, payload = split(data)
    if payload is None:
        assert head == data
    else:
        assert data.startswith(head)
        assert data.endswith(payload)


class Counted(bytes):
    """Bytes that count how often they are read."""

    reads = 0

    def __getitem__(self, at: Any) -> Any:
        self.reads += 1
        return super().__getitem__(at)


@pytest.mark.parametrize("data", [b"\xff" * 10**4, b"\x08\x01" * 10**4, b"\x7a" + b"\xff" * 10**4])
def test_hostile_bytes_are_given_up_early(data: bytes) -> None:
    # Endless varints or fields: one pass over them in Python would take minutes for a large frame.
    counted = Counted(data)
    assert split(counted) == (data, None)
    assert counted.reads < 10

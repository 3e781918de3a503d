"""A large payload at the end of a protobuf frame, without protobuf copying it.

Fields of a protobuf message may be concatenated. So the small part is left to protobuf and the
payload field is put behind it by hand; the whole is an Envelope like any other.
"""

from contextlib import suppress

_PAYLOAD = 15 << 3 | 2
"""Tag of Envelope.payload: field 15, length-delimited."""

_FIELDS = 3
"""Fields of an envelope: protocol, body, payload."""
_VARINT = 10
"""Longest varint, in bytes."""


def join(head: bytes, payload: bytes) -> bytes:
    """The frame of a serialised envelope and its payload."""
    if not payload:
        return head
    size, length = bytearray(), len(payload)
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    size.append(length)
    return b"".join((head, bytes([_PAYLOAD]), size, payload))


def split(data: bytes) -> tuple[bytes, bytes | None]:
    """Inverse of `join`; all of it and None where the frame does not end in a payload."""
    position = 0
    with suppress(IndexError):
        for _ in range(_FIELDS):
            tag = data[position]
            value, start = _varint(data, position + 1)
            if tag == _PAYLOAD and start + value == len(data):
                return data[:position], data[start:]
            if tag >= 0x80 or tag & 7 not in (0, 2):  # no field of an envelope
                break
            position = start + value if tag & 7 == 2 else start
    return data, None


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at `position` and where it ends; IndexError where it does not."""
    value = 0
    for number, byte in enumerate(data[position : position + _VARINT]):
        value |= (byte & 0x7F) << 7 * number
        if byte <= 0x7F:
            return value, position + number + 1
    raise IndexError(position)

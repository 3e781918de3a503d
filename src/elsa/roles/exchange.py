"""The shape of a party's work: it yields what it asks and is sent the answer.

Roles written so run unchanged in a simulation, where an engine plays the link, and over a real
link, where a loop does.
"""

from collections.abc import Generator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from elsa.core.codec import Codec, Frame, Packet
from elsa.errors import CodecError, ProtocolError
from elsa.wire.messages import Message

Result = TypeVar("Result")
Answer = TypeVar("Answer")

Exchange = Generator[Message, Message, Result]

_USABLE = (torch.float32, torch.bfloat16, torch.float16)


def expect(kind: type[Answer], message: Message) -> Answer:
    """The message, if it is of the kind that may come now.

    Raises:
        ProtocolError: it is of another kind.
    """
    if not isinstance(message, kind):
        raise ProtocolError(
            f"{type(message).__name__} came where {kind.__name__} was due; "
            "the peers are out of step or run different versions"
        )
    return message


def unseal(codec: Codec, packet: Packet, lengths: Sequence[int], hidden: int) -> Tensor:
    """Decode a packet that should hold a tensor [T, D]; T the sum of lengths, D = hidden.

    Raises:
        CodecError: its shape is another, its dtype none that a model computes in, or it holds NaN
            or infinity.
    """
    expected = (sum(lengths), hidden)
    if packet.shape != expected:
        raise CodecError(
            f"packet of shape {list(packet.shape)} came where {list(expected)} was due"
        )
    values = codec.decode(packet, Frame(lengths))
    if values.dtype not in _USABLE:
        raise CodecError(
            f"packet of {packet.dtype} came where hidden states or gradients were due; "
            "allowed: float32, bfloat16, float16"
        )
    if not bool(torch.isfinite(values).all()):
        raise CodecError("packet holds NaN or infinity; the sender's training has diverged")
    return values

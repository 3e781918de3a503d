"""The shape of a party's work: it yields what it asks and is sent the answer.

Roles written so run unchanged in a simulation, where an engine plays the link, and over a real
link, where a loop does.
"""

from collections.abc import Generator
from typing import TypeVar

from elsa.errors import ProtocolError
from elsa.wire.messages import Message

Result = TypeVar("Result")
Answer = TypeVar("Answer")

Exchange = Generator[Message, Message, Result]


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

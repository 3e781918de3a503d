"""The shape of a party's work: it yields what it asks and is sent the answer.

Roles written so run unchanged in a simulation, where an engine plays the link, and over a real
link, where a loop does. What is asked ahead is on its way while the party goes on with its work.
"""

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from elsa.errors import ProtocolError
from elsa.wire.messages import Message

Result = TypeVar("Result")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Ahead:
    """A request whose answer is not waited for; the party is sent Accepted, and goes on."""

    request: Message


@dataclass(frozen=True)
class Due:
    """The answer to the earliest request that was asked ahead and has none yet."""


Said = Message | Ahead | Due
"""What a party may yield; a plain message only while nothing that it asked ahead is unanswered."""

Exchange = Generator[Said, Message, Result]


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


def interleaved(exchanges: Sequence[Exchange[Result]]) -> Exchange[list[Result]]:
    """Exchanges under way at once: what each asks goes out while earlier answers are awaited.

    Their work is done in a fixed order, whatever the link: each up to its first request, and from
    then on each as its answer comes, answers coming in the order of the requests. One alone asks
    nothing ahead.
    """
    if len(exchanges) == 1:
        return [(yield from exchanges[0])]
    results: dict[int, Result] = {}
    waiting: deque[int] = deque()
    try:
        for number, exchange in enumerate(exchanges):
            yield Ahead(_plain(next(exchange)))
            waiting.append(number)
        while waiting:
            number = waiting.popleft()
            answer = yield Due()
            try:
                request = exchanges[number].send(answer)
            except StopIteration as stop:
                results[number] = stop.value
                continue
            yield Ahead(_plain(request))
            waiting.append(number)
    finally:
        for exchange in exchanges:
            exchange.close()
    return [results[number] for number in range(len(exchanges))]


def _plain(said: Said) -> Message:
    """What one of several exchanges asks; it may not be several itself."""
    assert not isinstance(said, Ahead | Due)
    return said

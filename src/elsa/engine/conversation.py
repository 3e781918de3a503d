"""Plays the link for a party's exchange: sends what it asks, hands it the answer."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from elsa.errors import ElsaError, Interrupted
from elsa.roles.exchange import Ahead, Due, Exchange
from elsa.wire.messages import Accepted, Gradients, LabelledActivations, Message, Ready
from elsa.wire.transport import Transport

Result = TypeVar("Result")


class Conversation(Generic[Result]):
    """One exchange over one transport, advanced a request at a time.

    Attributes:
        over: whether nothing is left to ask.
        result: what the exchange returned, once it has.
        error: why it ended early, if it did.
    """

    def __init__(
        self,
        exchange: Exchange[Result],
        transport: Transport,
        failed: Callable[[ElsaError], None] = lambda _: None,
    ) -> None:
        """Set up; `failed` is told at once when it ends early, as a broken link would tell."""
        self._exchange = exchange
        self._transport = transport
        self._failed = failed
        self._answer: Message | None = None
        self.over = False
        self.result: Result | None = None
        self.error: ElsaError | None = None

    def advance(self) -> Message | None:
        """Go on until something was asked or an answer came, or it is over; return what was asked.

        A request, and its answer, where the exchange waits for that; a request sent ahead; or the
        answer to such a one.
        """
        request: Message | None = None
        try:
            said = (
                next(self._exchange) if self._answer is None else self._exchange.send(self._answer)
            )
            if isinstance(said, Due):
                self._answer = self._transport.receive()
            elif isinstance(said, Ahead):
                request = said.request
                self._transport.send(request)
                self._answer = Accepted()
            else:
                request = said
                self._answer = self._transport.call(request)
        except StopIteration as stop:
            self.over, self.result = True, stop.value
            return None
        except Interrupted:
            raise
        except ElsaError as error:
            self._exchange.close()
            self.over, self.error = True, error
            self._failed(error)
            return None
        return request


def one_by_one(conversations: Sequence[Conversation[Result]], tick: Callable[[], None]) -> None:
    """Each to its end before the next begins: one device's state in memory at a time.

    `tick` is called after every request; what it raises ends everything.
    """
    for conversation in conversations:
        while not conversation.over:
            conversation.advance()
            tick()


def in_lockstep(conversations: Sequence[Conversation[Result]], tick: Callable[[], None]) -> None:
    """All take a local step before any takes the next, as a shared trunk needs it."""
    while any(not conversation.over for conversation in conversations):
        for conversation in conversations:
            while not conversation.over:
                request = conversation.advance()
                tick()
                if isinstance(request, Ready | Gradients | LabelledActivations):
                    break

"""A token for each edge round: the edge gives it with the plan, the device shows it with each step.

A certificate says who calls, and a session's token which session goes on; this one says that a step
belongs to the edge round that its sender was admitted to. One of another round, or of another
device, is refused, and costs whoever showed it that round.
"""

import hmac
import secrets
import threading
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

from elsa.errors import ProtocolError
from elsa.roles.exchange import Ahead, Due, Exchange
from elsa.wire.messages import (
    Activations,
    Gradients,
    LabelledActivations,
    LocalPlan,
    Message,
    Resend,
    Score,
    Update,
)

Result = TypeVar("Result")
Step = Activations | LabelledActivations | Gradients | Resend | Update | Score
"""What a device sends after it was admitted."""


class Tokens:
    """The tokens that are good now, one a device; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._good: dict[str, str] = {}

    def give(self, peer: str, plan: LocalPlan) -> LocalPlan:
        """The plan with a new token; an earlier one of that device is good no longer."""
        token = secrets.token_hex(16)
        with self._lock:
            self._good[peer] = token
        return replace(plan, token=token)

    def check(self, peer: str, step: Step) -> None:
        """See that a device shows the token that it was given last.

        Raises:
            ProtocolError: it shows none, or another.
        """
        with self._lock:
            good = self._good.get(peer)
        if good is None or not hmac.compare_digest(step.token.encode(), good.encode()):
            shown = "another token than" if step.token else "no token, not"
            raise ProtocolError(
                f"device {peer} shows {shown} that of this edge round with {type(step).__name__}"
            )

    def drop(self, peer: str) -> None:
        """Its token is good no longer."""
        with self._lock:
            self._good.pop(peer, None)


def showing(exchange: Exchange[Result]) -> Exchange[Result]:
    """The same exchange, each request with the token that the last plan brought."""
    token = ""
    with closing(exchange):
        request = next(exchange)
        while True:
            if isinstance(request, Ahead):
                request = Ahead(_shown(request.request, token))
            elif not isinstance(request, Due):
                request = _shown(request, token)
            answer: Message = yield request
            if isinstance(answer, LocalPlan):
                token = answer.token
            try:
                request = exchange.send(answer)
            except StopIteration as stop:
                result: Result = stop.value
                return result


def _shown(request: Message, token: str) -> Message:
    return replace(request, token=token) if isinstance(request, Step) else request

"""A caller's requests in order, each computed once however often it is sent."""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future

from elsa.errors import ProtocolError

Compute = Callable[[bytes], bytes]


class Session:
    """One caller's session; it outlives the streams that carry it.

    Requests are numbered from 0, and a caller sends the next only when it has the answer to the
    last. So the last answer is all that has to be kept: a request that comes again, over a new
    stream after the old one broke, gets the answer that was, or is being, computed.

    Attributes:
        peer: name of the caller.
        token: whoever shows it may go on with the session.
    """

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.token = secrets.token_urlsafe(24)
        self._lock = threading.Lock()
        self._due = 0
        self._last: Future[bytes] | None = None

    def check(self, number: int) -> None:
        """Raise ProtocolError if a stream may not go on with this request."""
        with self._lock:
            if number != self._due and (number != self._due - 1 or self._last is None):
                raise ProtocolError(
                    f"{self.peer} goes on with request {number}; {self._due} is due, "
                    f"or {self._due - 1} again"
                )

    def answer(self, number: int, request: bytes, compute: Compute) -> bytes:
        """The answer to a request: computed, or remembered if it is the last one again.

        Raises:
            ProtocolError: it is neither the next request nor the last.
        """
        self.check(number)
        with self._lock:
            mine = number == self._due
            if mine:
                self._last = Future()
                self._due += 1
            answer = self._last
        assert answer is not None
        if mine:
            try:
                answer.set_result(compute(request))
            except BaseException as error:
                answer.set_exception(error)
                raise
        return answer.result()

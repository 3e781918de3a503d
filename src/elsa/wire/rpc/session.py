"""A caller's requests in order, each computed once however often it is sent."""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future

from elsa.errors import ProtocolError

Compute = Callable[[bytes], bytes]


class Session:
    """One caller's session; it outlives the streams that carry it.

    Requests are numbered from 0, and a caller has at most `ahead` of them without an answer. So the
    last `ahead` answers are all that has to be kept: a request that comes again, over a new stream
    after the old one broke, gets the answer that was, or is being, computed.

    Attributes:
        peer: name of the caller.
        token: whoever shows it may go on with the session.
    """

    def __init__(self, peer: str, ahead: int = 1) -> None:
        self.peer = peer
        self.token = secrets.token_urlsafe(24)
        self._ahead = ahead
        self._lock = threading.Lock()
        self._due = 0
        self._last: dict[int, Future[bytes]] = {}

    def check(self, number: int) -> None:
        """Raise ProtocolError if a stream may not go on with this request."""
        with self._lock:
            if number != self._due and number not in self._last:
                again = f"{self._due - self._ahead}" + (" or later" if self._ahead > 1 else "")
                raise ProtocolError(
                    f"{self.peer} goes on with request {number}; {self._due} is due, "
                    f"or {again} again"
                )

    def answer(self, number: int, request: bytes, compute: Compute) -> bytes:
        """The answer to a request: computed, or remembered if it is one of the last again.

        Raises:
            ProtocolError: it is neither the next request nor one of the last.
        """
        self.check(number)
        with self._lock:
            mine = number == self._due
            if mine:
                self._last[number] = Future()
                self._last.pop(number - self._ahead, None)
                self._due += 1
            answer = self._last[number]
        if mine:
            try:
                answer.set_result(compute(request))
            except BaseException as error:
                answer.set_exception(error)
                raise
        return answer.result()

"""Several edge servers asked at once, some of which may be slow, gone, or back.

An edge that is left waiting for is not asked again before it has answered: a link carries one
request at a time.
"""

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from elsa.errors import ElsaError, LinkError, SessionError
from elsa.wire.messages import Message
from elsa.wire.transport import Transport

Answer = Message | ElsaError
GiveUp = Callable[[Collection[str], Mapping[str, Answer]], str]
"""From the names of those that have not answered, and the answers so far, to the reason why they
are waited for no longer; empty to wait on."""

_PAUSE = 0.5
"""Seconds before an edge that began anew is asked again."""
_LOOK = 0.1
"""Seconds between looks at who has answered."""
_log = logging.getLogger(__name__)


class Asking:
    """The links of a cloud to its edges, each with a thread that waits for its answer."""

    def __init__(self, links: Mapping[str, Transport]) -> None:
        """Set up with a link to each edge, by name."""
        self._links = links
        self._pool = ThreadPoolExecutor(max(len(links), 1), "edges")
        self._busy: dict[str, Future[Answer]] = {}
        self._over = threading.Event()

    def ask(
        self,
        requests: Mapping[str, Message],
        give_up: GiveUp = lambda *_: "",
        tick: Callable[[], None] = lambda: None,
    ) -> dict[str, Answer]:
        """The answer of each edge, or why there is none.

        An edge that began anew, because it was restarted, is asked again at once. `tick` is called
        every now and then; what it raises ends the waiting.
        """
        answers: dict[str, Answer] = {}
        coming: dict[Future[Answer], str] = {}
        for name, request in requests.items():
            if name in self._busy and not self._busy[name].done():
                answers[name] = LinkError(f"{name} has not answered what it was asked before")
                continue
            self._busy[name] = self._pool.submit(self._answer, name, request)
            coming[self._busy[name]] = name
        while coming:
            for done in wait(coming, _LOOK, return_when=FIRST_COMPLETED).done:
                answers[coming[done]] = done.result()
                del coming[done]
            tick()
            reason = give_up(tuple(coming.values()), answers) if coming else ""
            if reason:
                answers |= {name: LinkError(f"{name} {reason}") for name in coming.values()}
                break
        return {name: answers[name] for name in requests}

    def close(self, *, wait: bool = False) -> None:
        """Ask nothing more; threads that wait end when their links are closed, `wait` for them."""
        self._over.set()
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def _answer(self, name: str, request: Message) -> Answer:
        while True:
            try:
                return self._links[name].call(request)
            except SessionError as error:
                if self._over.wait(_PAUSE):
                    return error
                _log.warning("%s; asking again", error)
            except ElsaError as error:
                return error

"""What the cloud asks of its edges, held until Flower brings the answer, however often it must go.

A job that gets lost on the way is sent again under the same name; the edge computes it once.
"""

import logging
import secrets
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic

from elsa.engine.flower.door import Door, Head
from elsa.errors import LinkError
from elsa.wire.transport import Caller, Layer, Link, at_once

_HOLD = 1.0
"""Seconds that the ServerApp is held when there is nothing to send."""
_PAUSE = 2.0
"""Seconds before a job that failed is sent again."""
_BROUGHT = 15.0
"""Seconds after which a job that was sent counts as brought there, if it fails then."""
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """One request on its way.

    Attributes:
        edge: name of the edge that is asked.
        name: of the request, the same however often it is sent.
        frame: the request.
        until: moment after which nobody waits for the answer.
        due: moment from which it may be sent.
        sent: moment at which it was sent last.
        failing: since when it cannot be brought there; None while it can.
        reason: why not.
        answer: the frame of the answer.
    """

    edge: str
    name: str
    frame: bytes
    until: float
    due: float = 0.0
    sent: float = 0.0
    failing: float | None = None
    reason: str = ""
    answer: Future[bytes] = field(default_factory=Future)


class Orders:
    """Jobs of all edges, and the door where the ServerApp fetches them.

    Attributes:
        door: where the ServerApp asks.
    """

    def __init__(self, path: Path, limit: int) -> None:
        """Open the door at `path`; answers of over `limit` bytes are not taken."""
        self._limit = limit
        self._news = threading.Condition()
        self._waiting: list[Job] = []
        self._out: dict[int, Job] = {}
        self._keys = count()
        self._callers = 0
        self._over = False
        self.door = Door(path, self._answer, self._came, self._left)

    def ask(self, job: Job, patience: float) -> bytes:
        """The answer to a job.

        Args:
            job: what and whom to ask.
            patience: seconds for which it may be impossible to bring the job there.

        Raises:
            LinkError: none came in time.
        """
        with self._news:
            self._waiting.append(job)
            self._news.notify_all()
        try:
            while not job.answer.done():
                now = monotonic()
                if self._over or now >= job.until:
                    raise LinkError(f"no answer of {job.edge} over Flower: {job.reason or 'late'}")
                if job.failing is not None and now - job.failing > patience:
                    raise LinkError(f"{job.edge} is not reached over Flower: {job.reason}")
                with self._news:
                    self._news.wait(min(_HOLD, job.until - now))
        finally:
            with self._news:
                self._waiting = [it for it in self._waiting if it is not job]
                self._out = {key: it for key, it in self._out.items() if it is not job}
        return job.answer.result()

    def wait_for(self, *, here: bool, seconds: float) -> bool:
        """Whether a ServerApp is here (or none is) within so many seconds."""
        with self._news:
            return self._news.wait_for(lambda: self._over or here == bool(self._callers), seconds)

    @property
    def over(self) -> bool:
        """Whether it is closed."""
        return self._over

    def close(self) -> None:
        """Tell the ServerApp to end; who still waits for an answer gets none."""
        with self._news:
            self._over = True
            self._news.notify_all()
        self.door.close()

    def _answer(self, head: Head, frame: bytes) -> tuple[Head, bytes]:
        with self._news:
            if head["say"] == "next":
                return self._next()
            job = self._out.pop(int(head["job"]), None)
            if job is None:
                return {}, b""  # nobody waits for it any more
            if head["say"] == "answer" and len(frame) <= self._limit:
                job.answer.set_result(frame)
            else:
                job.reason = str(head.get("reason") or f"an answer of {len(frame)} bytes")
                now = monotonic()
                if job.failing is None or now - job.sent > _BROUGHT:
                    _log.warning("%s not reached: %s; trying again", job.edge, job.reason)
                    job.failing = now
                self._again(job)
            self._news.notify_all()
        return {}, b""

    def _next(self) -> tuple[Head, bytes]:
        until = monotonic() + _HOLD
        while not self._over:
            now = monotonic()
            job = next((it for it in self._waiting if it.due <= now), None)
            if job is not None:
                self._waiting.remove(job)
                key = next(self._keys)
                self._out[key], job.sent = job, now
                head = {"job": key, "edge": job.edge, "seconds": max(job.until - now, 1.0)}
                return head | {"request": job.name}, job.frame
            if now >= until:
                return {}, b""
            self._news.wait(min(until - now, 0.25))
        return {"end": True}, b""

    def _again(self, job: Job) -> None:
        job.due = monotonic() + _PAUSE
        self._waiting.append(job)

    def _came(self) -> None:
        with self._news:
            self._callers += 1
            self._news.notify_all()

    def _left(self) -> None:
        """What the ServerApp had sent, the next one sends again."""
        with self._news:
            self._callers -= 1
            for job in self._out.values():
                self._again(job)
            self._out.clear()
            self._news.notify_all()


class FlowerLink(Caller):
    """The cloud's end of a link to an edge."""

    def __init__(
        self,
        orders: Orders,
        link: Link,
        layers: Sequence[Layer],
        *,
        seconds: float,
        patience: float,
    ) -> None:
        """Set up.

        Args:
            orders: of all edges.
            link: which.
            layers: effects on what passes.
            seconds: how long is waited for an answer.
            patience: for how long of these it may be impossible to bring the request there.
        """
        super().__init__(*at_once(self._carry), link, layers)
        self._orders, self._edge = orders, link.below
        self._seconds, self._patience = seconds, patience

    def _carry(self, data: bytes) -> bytes:
        """Bring a frame there and its answer back.

        Every request has a name of its own, under which it is sent again when it gets lost. One
        that is made again after it got no answer is another: it must not be answered with what
        the edge said to the first.

        Raises:
            LinkError: no answer in time.
        """
        job = Job(self._edge, secrets.token_urlsafe(24), data, monotonic() + self._seconds)
        return self._orders.ask(job, self._patience)

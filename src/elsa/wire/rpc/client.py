"""The caller's end of a gRPC link: it survives broken streams.

When a stream breaks, the caller connects anew, shows its session's token and sends again every
request that has no answer yet; the server computes each once (`wire.rpc.session`).
"""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import grpc

from elsa.errors import CertificateError, LinkError, ProtocolError, SessionError
from elsa.wire.checks import FRAME_LIMIT
from elsa.wire.rpc.options import METHOD, NUMBER, PEER, SERVICE, TOKEN, Timing, channel_options
from elsa.wire.rpc.security import Loopback, Security, Tls, channel, check_address
from elsa.wire.rpc.shown import shown_certificate
from elsa.wire.transport import Caller, Layer, Link

_log = logging.getLogger(__name__)
_FINAL = {
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}
_SESSION_OVER = {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.RESOURCE_EXHAUSTED}


class _BrokenError(Exception):
    """A stream ended or gave no answer in time."""

    def __init__(self, code: grpc.StatusCode | None, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Rpc(Caller):
    """A link to a server at an address; connects at the first call."""

    def __init__(
        self,
        address: str,
        link: Link,
        security: Security,
        layers: Sequence[Layer] = (),
        *,
        timing: Timing | None = None,
        limit: int = FRAME_LIMIT,
    ) -> None:
        """Set up.

        Args:
            address: HOST:PORT of the server.
            link: who calls whom; the caller's name must be that of `security`.
            security: who the caller is.
            layers: effects on what passes.
            timing: how long is waited for what.
            limit: largest frame, in bytes.

        Raises:
            ConfigError: the address is none, or not of this machine where there is no TLS.
        """
        super().__init__(self._send, self._receive, link, layers)
        assert security.name == link.caller
        self._address = check_address(address, security)
        self._security = security
        self._server = link.above if link.caller == link.below else link.below
        self._timing = timing or Timing()
        self._limit = limit
        self._stream: _Stream | None = None
        self._token = ""
        self._number = 0  # of the earliest request without an answer
        self._unanswered: deque[tuple[bytes, float]] = deque()  # each with when it was asked
        self._closed = threading.Event()

    def close(self) -> None:
        """Hang up for good; a call that still waits, in another thread, fails."""
        self._closed.set()
        self._drop()

    def _send(self, data: bytes) -> None:
        """Say it, where a stream is open; else it is said when an answer is waited for."""
        stream = self._stream
        if stream and self._doubts(stream):
            self._drop()
            stream = None
        self._unanswered.append((data, monotonic()))
        if stream:
            stream.say(data)

    def _receive(self) -> bytes:
        """The answer to the earliest request, over as many streams as it takes.

        Raises:
            CertificateError: this party's certificate files cannot be used.
            UntrustedError: the server's certificate was revoked.
            SessionError: the session is over at the other end; the next call begins a new one.
            LinkError: no answer in time; so does the next call. Or this link was closed.
            ProtocolError: the server does not let this party in.
        """
        timing, asked = self._timing, self._unanswered[0][1]
        broken, pause = 0.0, timing.first_pause
        while True:
            try:
                stream = self._stream or self._open()
                answer = stream.hear(asked + timing.answer - monotonic())
            except _BrokenError as error:
                self._drop()
                now = monotonic()
                broken = broken or now
                late = now - asked >= timing.answer or now - broken >= timing.reconnect
                over = error.code in _FINAL or error.code in _SESSION_OVER
                if over or late or self._closed.is_set():
                    self._reset()
                    raise self._failure(error) from error
                _log.info("link to %s at %s broke: %s", self._server, self._address, error)
                self._closed.wait(pause)
                pause = min(2 * pause, timing.longest_pause)
            except BaseException:
                self._reset()  # else the next call would take this one's answer
                raise
            else:
                self._number += 1
                self._unanswered.popleft()
                return answer

    def _open(self) -> "_Stream":
        if self._closed.is_set():
            raise _BrokenError(None, "this link was closed here")
        metadata = [(NUMBER, str(self._number))]
        if self._token:
            metadata.append((TOKEN, self._token))
        if isinstance(self._security, Loopback):
            metadata.append((PEER, self._security.name))
        shown = b""
        if isinstance(self._security, Tls) and self._security.revoked.exists():
            self._security.check()
            try:
                shown = shown_certificate(self._address, self._security, self._timing.reconnect)
            except OSError as error:
                raise _BrokenError(grpc.StatusCode.UNAVAILABLE, str(error)) from error
        opened = channel(self._address, self._security, channel_options(self._limit), shown)
        self._stream = _Stream(opened, metadata, shown)
        self._token = self._stream.token(self._timing.reconnect)
        for data, _ in self._unanswered:
            self._stream.say(data)
        return self._stream

    def _doubts(self, stream: "_Stream") -> bool:
        """Whether the server is to show its certificate before the next word is said to it."""
        if not isinstance(self._security, Tls) or not self._security.revoked.exists():
            return False
        try:
            return not stream.shown or bool(self._security.revocation(stream.shown))
        except CertificateError:  # no new link is made, which says why; this one was good before
            return False

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _reset(self) -> None:
        self._drop()
        self._token, self._number = "", 0
        self._unanswered.clear()

    def _failure(self, error: _BrokenError) -> LinkError | ProtocolError:
        where = f"{self._server} at {self._address}"
        if error.code in _FINAL:
            return ProtocolError(f"{where} does not let {self._security.name} in: {error}")
        if error.code is grpc.StatusCode.FAILED_PRECONDITION:
            return SessionError(f"{where} began anew, or ended this session: {error}")
        hint = ""
        unreachable = "refused" in str(error) or error.code is not grpc.StatusCode.UNAVAILABLE
        if isinstance(self._security, Tls) and not unreachable:
            hint = (
                f"; if the address is right, one end may not accept the other's certificate: here "
                f"{self._security.certificate} by {self._security.authority}"
            )
        return LinkError(f"no answer of {where}: {error}{hint}")


class _Stream:
    """One gRPC stream, and the thread that reads it.

    Attributes:
        shown: the server's certificate, in PEM; empty if it was not looked at.
    """

    def __init__(
        self, opened: grpc.Channel, metadata: Sequence[tuple[str, str]], shown: bytes
    ) -> None:
        self._channel, self.shown = opened, shown
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[str | bytes | _BrokenError] = queue.SimpleQueue()
        method: Callable[..., Any] = opened.stream_stream(f"/{SERVICE}/{METHOD}")
        self._call = method(iter(self._requests.get, None), metadata=metadata)
        threading.Thread(target=self._read, args=(self._call,), daemon=True).start()

    def token(self, seconds: float) -> str:
        """The session's token, as the server says it."""
        return str(self._wait(seconds))

    def say(self, data: bytes) -> None:
        """Send a request."""
        self._requests.put(data)

    def hear(self, seconds: float) -> bytes:
        """The next answer, if it comes in so many seconds; else raises _BrokenError."""
        answer = self._wait(seconds)
        assert isinstance(answer, bytes)
        return answer

    def close(self) -> None:
        """Hang up; a waiting thread ends."""
        self._requests.put(None)
        self._call.cancel()
        self._channel.close()

    def _wait(self, seconds: float) -> str | bytes:
        try:
            found = self._answers.get(timeout=max(seconds, 0))
        except queue.Empty:
            raise _BrokenError(None, f"nothing came for {seconds:.1f} s") from None
        if isinstance(found, _BrokenError):
            raise found
        return found

    def _read(self, call: Any) -> None:
        try:
            metadata = dict(call.initial_metadata())
            if TOKEN in metadata:
                self._answers.put(str(metadata[TOKEN]))
            for answer in call:
                self._answers.put(answer)
            self._answers.put(_BrokenError(None, "the other end closed the stream"))
        except grpc.RpcError as error:
            self._answers.put(_BrokenError(error.code(), error.details() or str(error.code())))

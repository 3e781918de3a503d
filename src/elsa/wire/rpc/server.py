"""The server's end of gRPC links: one stream a caller, its requests answered in order.

A stream's thread decodes, asks the handler and encodes; the handler is called for several callers
at once, and for one request after the other of a caller. A stream holds one request and one answer
at most, and where its caller may send ahead, as many requests as that. A caller has one stream.
"""

import hmac
import logging
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc

from elsa.errors import CertificateError, ConfigError, FrameError, ProtocolError
from elsa.wire.checks import FRAME_LIMIT, check_name
from elsa.wire.messages import Refusal
from elsa.wire.rpc.options import METHOD, NUMBER, PEER, SERVICE, TOKEN, server_options
from elsa.wire.rpc.readahead import read_ahead
from elsa.wire.rpc.security import Security, Tls, bind, check_address
from elsa.wire.rpc.session import Session
from elsa.wire.serde import encode
from elsa.wire.transport import Handler, serve

_log = logging.getLogger(__name__)
_NO_TOKEN = ""


@dataclass(frozen=True)
class Watch:
    """Whom the server tells of its callers; from any thread, and not for long.

    Attributes:
        began: a caller began a new session; an earlier one of it is over.
        back: a caller goes on with its session over a new stream.
        left: a caller's stream ended; it may come back.
        refused: a request was refused; the caller, and why.
        turned_away: a caller was not let in; the reason in a word or two.
        passed: a request was answered; the caller, and the bytes of either.
    """

    began: Callable[[str], None] = field(default=lambda _: None)
    back: Callable[[str], None] = field(default=lambda _: None)
    left: Callable[[str], None] = field(default=lambda _: None)
    refused: Callable[[str, str], None] = field(default=lambda *_: None)
    turned_away: Callable[[str], None] = field(default=lambda _: None)
    passed: Callable[[str, int, int], None] = field(default=lambda *_: None)


class RpcServer:
    """Serves a handler at an address, from `start` on; or within a `with`.

    Attributes:
        address: HOST:PORT where it listens, with the real port if 0 was asked for.
    """

    def __init__(
        self,
        handler: Handler,
        address: str,
        security: Security,
        *,
        callers: Collection[str] | int = 64,
        limit: int = FRAME_LIMIT,
        watch: Watch | None = None,
        ahead: int = 1,
    ) -> None:
        """Bind.

        Args:
            handler: answers requests; several at once, but one at a time of a caller.
            address: HOST:PORT; port 0 takes a free one.
            security: who this server is, and how callers show who they are.
            callers: names of those that may call; or how many may, whoever they are.
            limit: largest frame, in bytes.
            watch: told of callers.
            ahead: requests that a caller may have without an answer; both ends must agree.

        Raises:
            CertificateError: the certificate files cannot be used.
            ConfigError: the address cannot be had.
        """
        self._handler = handler
        self._security = security
        self._names = None if isinstance(callers, int) else frozenset(callers)
        self._limit = limit
        self._ahead = ahead
        self._watch = watch or Watch()
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._streams: dict[str, grpc.ServicerContext] = {}
        most = callers if isinstance(callers, int) else len(callers)
        streams = 2 * most + 4  # an old stream may linger while its caller comes back
        self._server = grpc.server(
            ThreadPoolExecutor(streams, "rpc"),
            options=server_options(limit),
            maximum_concurrent_rpcs=streams,
        )
        method = grpc.stream_stream_rpc_method_handler(self._exchange)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),)
        )
        try:
            port = bind(self._server, check_address(address, security), security)
        except RuntimeError as error:
            raise ConfigError(f"cannot listen at {address}: in use, or not of here") from error
        self.address = f"{address.rpartition(':')[0]}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self, grace: float = 1.0) -> None:
        """End; what is being answered has `grace` seconds left."""
        self._server.stop(grace).wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(0.0)

    def _exchange(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        session, number = self._enter(context)
        context.add_callback(lambda: self._leave(session, context))
        context.send_initial_metadata(((TOKEN, session.token),))
        broken: list[str] = []

        def refused(peer: str, reason: str) -> None:
            _log.warning("%s refused: %s", peer, reason, extra={"peer": peer, "reason": reason})
            if reason.startswith(FrameError.__name__):
                broken.append(reason)
            self._watch.refused(peer, reason)

        def compute(data: bytes) -> bytes:
            if len(data) > self._limit:
                reason = f"frame of {len(data)} bytes is over this server's limit of {self._limit}"
                refused(session.peer, f"{FrameError.__name__}: {reason}")
                return encode(Refusal(FrameError.__name__, reason))
            return serve(self._handler, session.peer, data, refused)

        with self._reading(requests) as taken:
            for number, data in enumerate(taken, number):  # noqa: B020
                if gone := self._revoked(context):
                    refused(session.peer, f"{ProtocolError.__name__}: {gone}")
                    self._forget(session)
                    context.abort(grpc.StatusCode.PERMISSION_DENIED, gone)
                answer = session.answer(number, data, compute)
                self._watch.passed(session.peer, len(data), len(answer))
                yield answer
                if broken:  # no caller of this protocol sends such bytes; it starts again
                    self._forget(session)
                    return

    def _reading(self, requests: Iterator[bytes]) -> AbstractContextManager[Iterator[bytes]]:
        return read_ahead(requests, self._ahead) if self._ahead > 1 else nullcontext(requests)

    def _enter(self, context: grpc.ServicerContext) -> tuple[Session, int]:
        """The session that a stream is of, and the number of its first request; or abort it."""
        sent = {key: value for key, value in context.invocation_metadata()}  # noqa: C416
        try:
            peer = self._peer(context, sent)
            token, number = str(sent.get(TOKEN, _NO_TOKEN)), int(sent.get(NUMBER, ""))
        except (CertificateError, ProtocolError, FrameError, ValueError) as error:
            self._turn_away(context.peer(), "not let in", error)
            context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        with self._lock:
            session = self._sessions.get(peer)
            try:
                if token == _NO_TOKEN:
                    session = Session(peer, self._ahead)
                elif session is None:
                    raise LookupError("this session is not known here, or was ended")
                elif not hmac.compare_digest(token.encode(), session.token.encode()):
                    raise LookupError("this token is not that of the session, or no longer")
                session.check(number)
            except (LookupError, ProtocolError) as error:
                self._turn_away(f"{peer} at {context.peer()}", "session unknown", error)
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
            assert session is not None
            self._sessions[peer] = session
            before = self._streams.get(peer)
            self._streams[peer] = context
        if before is not None:
            before.cancel()
        if token == _NO_TOKEN:
            _log.info("%s began a session from %s", peer, context.peer(), extra={"peer": peer})
            self._watch.began(peer)
        else:
            _log.info("%s is back from %s", peer, context.peer(), extra={"peer": peer})
            self._watch.back(peer)
        return session, number

    def _peer(self, context: grpc.ServicerContext, sent: dict[str, str | bytes]) -> str:
        if isinstance(self._security, Tls):
            shown: dict[str, list[bytes]] = context.auth_context()
            peer = shown.get("x509_common_name", [b""])[0].decode(errors="replace")
            if gone := self._security.revocation(shown["x509_pem_cert"][0]):
                raise ProtocolError(gone)
        else:
            peer = str(sent.get(PEER, ""))
        check_name("name of a caller", peer)
        if self._names is not None and peer not in self._names:
            raise ProtocolError(f"'{peer}' is none of those that may call here")
        return peer

    def _turn_away(self, who: str, kind: str, why: Exception) -> None:
        said = {"peer": who, "reason": str(why)}
        _log.warning("%s refused at the door: %s", who, why, extra=said)
        self._watch.turned_away(kind)

    def _revoked(self, context: grpc.ServicerContext) -> str:
        """Why a caller that is in may not stay; empty if it may."""
        if not isinstance(self._security, Tls):
            return ""
        try:
            return self._security.revocation(context.auth_context()["x509_pem_cert"][0])
        except CertificateError:  # nobody new comes in, which the log says; this one was in before
            return ""

    def _leave(self, session: Session, context: grpc.ServicerContext) -> None:
        with self._lock:
            if self._streams.get(session.peer) is not context:
                return
            del self._streams[session.peer]
        _log.info("the stream of %s ended", session.peer, extra={"peer": session.peer})
        self._watch.left(session.peer)

    def _forget(self, session: Session) -> None:
        with self._lock:
            if self._sessions.get(session.peer) is session:
                del self._sessions[session.peer]

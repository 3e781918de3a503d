"""An edge's end: it starts Flower's SuperNode, whose ClientApps bring the cloud's orders here."""

import logging
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from time import monotonic, sleep

from elsa.engine.flower.children import Children, free_port, quoted, write_private
from elsa.engine.flower.door import Door, Head
from elsa.engine.flower.pulse import Pulse
from elsa.errors import ConfigError
from elsa.wire.rpc.nodekeys import node_key
from elsa.wire.rpc.security import Security, Tls, check_address
from elsa.wire.rpc.session import Session
from elsa.wire.transport import Handler, serve

_LAST_WORDS = 60.0
"""Seconds for the last answer to get to the cloud; Flower does not say when it is there."""
_log = logging.getLogger(__name__)


@contextmanager
def flower_caller(
    address: str,
    security: Security,
    cloud: str,
    handler: Handler,
    *,
    limit: int,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Callable[[], None]]:
    """Let the cloud call a handler over Flower; all that it started ends with it.

    Gives what waits for the cloud to end, so that the last answer is not cut off.

    Args:
        address: HOST:PORT where the cloud lets SuperNodes in.
        security: who this edge is.
        cloud: name under which the handler knows the cloud.
        handler: answers its requests.
        limit: largest frame, in bytes.
        say: told what takes time.

    Raises:
        ConfigError: Flower is not installed.
        CertificateError: this edge's files cannot be used.
    """
    if not isinstance(security, Tls):
        raise ConfigError("deploy.link = 'flower' needs certificates: give --certs FOLDER")
    check_address(address, security)
    key = node_key(security)
    with Children() as children:
        entry = Entry(cloud, handler, limit)
        with closing(Door(children.folder / "door", entry.answer)) as door:
            say(f"starting Flower's SuperNode for {address}")
            at = f"127.0.0.1:{free_port()}"
            secret = str(write_private(children.folder / "secret", secrets.token_bytes(32)))
            own = write_private(children.folder / "node.key", key)
            host, _, port = at.rpartition(":")
            node = children.supervise(
                "flower-supernode",
                *("--superlink", address, "--host", host, "--port", port),
                *("--root-certificates", str(security.authority.resolve())),
                *("--auth-supernode-private-key", str(own)),
                *("--node-config", quoted({"door": str(door.path)})),
                *("--isolation", "process", "--superexec-auth-secret-file", secret),
                answers=Pulse(f"http://{at}/health"),
            )
            children.supervise(
                "flower-superexec",
                *("--runtime-api-address", at, "--insecure", "--executor", "subprocess"),
                *("--superexec-auth-secret-file", secret),
                takes=node,  # its ClientApp dies with it, and the SuperNode would wait for that
            )
            yield partial(_wait_while_reached, address)


def _wait_while_reached(address: str) -> None:
    host, _, port = address.rpartition(":")
    until = monotonic() + _LAST_WORDS
    while monotonic() < until:
        try:
            socket.create_connection((host.strip("[]"), int(port)), 1.0).close()
        except ConnectionError:
            return
        except OSError:
            continue  # a network that is slow, not a cloud that is gone
        sleep(1.0)


def _note(peer: str, reason: str) -> None:
    _log.warning("%s refused: %s", peer, reason)


class Entry:
    """What answers at an edge's door: each order is computed once, however often it comes."""

    def __init__(
        self,
        cloud: str,
        handler: Handler,
        limit: int,
        refused: Callable[[str, str], None] = _note,
    ) -> None:
        """Set up for the requests of `cloud`, of up to `limit` bytes; `refused` is told why not."""
        self._cloud, self._handler, self._limit = cloud, handler, limit
        self._refused = refused
        self._lock = threading.Lock()
        self._name, self._session = "", Session(cloud)

    def answer(self, head: Head, frame: bytes) -> tuple[Head, bytes]:
        """The answer to a request, or the one that it got before."""
        if len(frame) > self._limit:
            return {"failed": f"a frame of {len(frame)} bytes is over the edge's limit"}, b""
        with self._lock:
            if head["request"] != self._name:
                self._name, self._session = str(head["request"]), Session(self._cloud)
            session = self._session
        return {}, session.answer(0, frame, self._compute)

    def _compute(self, frame: bytes) -> bytes:
        return serve(self._handler, self._cloud, frame, self._refused)

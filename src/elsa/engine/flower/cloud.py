"""The cloud's end: it starts Flower's SuperLink, lets its edges in, keeps a ServerApp running."""

import json
import logging
import secrets
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, sleep

from elsa.engine.flower.children import Child, Children, free_port, quoted, write_private
from elsa.engine.flower.front import Front
from elsa.engine.flower.orders import FlowerLink, Orders
from elsa.engine.flower.pulse import Pulse
from elsa.errors import ConfigError, ElsaError
from elsa.wire.rpc.nodekeys import public_node_key
from elsa.wire.rpc.options import Timing
from elsa.wire.rpc.security import Security, Tls, check_address
from elsa.wire.transport import Layer, Link, Transport

REJOIN = 90.0
"""Seconds in which a SuperNode that was killed is back: Flower lets it in again after 43 to 61."""
_CHUNK = 8 * 2**20
"""Bytes that a request of a SuperNode may have at least: arrays come in pieces of 5 MiB."""
_START, _APP_START = 600.0, 300.0
"""Seconds for a SuperLink to be there, and for a ServerApp; Flower itself starts an app again."""
_NAME = "elsa"
_APP = Path(__file__).with_name("app")
_log = logging.getLogger(__name__)


@contextmanager
def flower_links(
    address: str,
    security: Security,
    links: Sequence[Link],
    layers: Sequence[Layer] = (),
    *,
    timing: Timing,
    limit: int,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[dict[str, Transport]]:
    """Links to edges over Flower, by name of the edge; all that it started ends with it.

    Args:
        address: HOST:PORT where the SuperNodes of the edges find the cloud.
        security: who the cloud is; its folder holds the certificate of each edge besides.
        links: to which edges.
        layers: effects on what passes.
        timing: how long is waited for what.
        limit: largest frame, in bytes.
        say: told what takes time.

    Raises:
        ConfigError: Flower is not installed, or does not start; with what it said.
        CertificateError: a certificate cannot be used.
    """
    if not isinstance(security, Tls):
        raise ConfigError("deploy.link = 'flower' needs certificates: give --certs FOLDER")
    security.check()
    check_address(address, security)
    keys = {it.below: public_node_key(Tls(security.folder, it.below)) for it in links}
    say("starting Flower's SuperLink")
    with Children() as children:
        behind = _superlink(children, security)
        _register(children, keys)
        with (
            closing(Front(address, security, behind, max(limit, _CHUNK))),
            closing(Orders(children.folder / "door", limit)) as orders,
        ):
            threading.Thread(target=_keep_running, args=(children, orders), daemon=True).start()
            say(f"SuperNodes of {', '.join(keys)} find the cloud at {address}")
            patience = max(timing.reconnect, REJOIN)
            yield {
                it.below: FlowerLink(orders, it, layers, seconds=timing.answer, patience=patience)
                for it in links
            }


def _superlink(children: Children, security: Tls) -> str:
    """Start a SuperLink and what runs its apps; HOST:PORT of it, once it answers."""
    folder, at = children.folder, f"127.0.0.1:{free_port()}"
    secret = str(write_private(folder / "secret", secrets.token_bytes(32)))
    home = folder / "home"
    home.mkdir()
    connection = {"address": at, "root-certificates": str(security.authority.resolve())}
    lines = [f"{name} = {json.dumps(value)}" for name, value in connection.items()]
    words = "\n".join(["[superlink]", f'default = "{_NAME}"', f"[superlink.{_NAME}]", *lines, ""])
    (home / "config.toml").write_text(words, encoding="utf-8")
    host, _, port = at.rpartition(":")
    trusted = ssl.create_default_context(cafile=str(security.authority))
    pulse = Pulse(f"https://{at}/health", trusted)
    superlink = children.supervise(
        "flower-superlink",
        *("--host", host, "--port", port, "--database", str(folder / "state.db")),
        *("--isolation", "process", "--enable-supernode-auth"),
        *("--disable-runtime-dependency-installation", "--superexec-auth-secret-file", secret),
        *("--ssl-certfile", str(security.certificate.resolve())),
        *("--ssl-keyfile", str(security.key.resolve())),
        *("--ssl-ca-certfile", str(security.authority.resolve())),
        answers=pulse,
    )
    _wait_for(superlink, pulse)
    children.supervise(
        "flower-superexec",
        *("--runtime-api-address", at, "--root-certificates", str(security.authority.resolve())),
        *("--executor", "subprocess", "--superexec-auth-secret-file", secret),
    )
    return at


def _wait_for(superlink: Child, pulse: Pulse) -> None:
    until = monotonic() + _START
    while superlink.starts == 1 and monotonic() < until and not pulse.mistrusted:
        if pulse():
            return
        sleep(0.2)
    raise ConfigError(
        f"Flower's SuperLink does not start ({pulse.reason}; the cloud's certificate must be valid "
        f"for 127.0.0.1, as `elsa certs` makes it with deploy.link = 'flower'): "
        f"{superlink.last_words()[-800:]}"
    )


def _register(children: Children, keys: dict[str, bytes]) -> None:
    for name, key in keys.items():
        path = write_private(children.folder / f"{name}.pub", key)
        children.once("flwr", "supernode", "register", str(path), _NAME, "--name", name)


def _keep_running(children: Children, orders: Orders) -> None:
    """Have a ServerApp at the door, and another one when it is gone."""
    while not orders.over:
        try:
            door = quoted({"door": str(orders.door.path)})
            children.once("flwr", "run", str(_APP), _NAME, "--run-config", door)
        except ElsaError as error:
            _log.warning("%s; trying again", error)
            orders.wait_for(here=True, seconds=1.0)
            continue
        if not orders.wait_for(here=True, seconds=_APP_START):
            _log.warning("Flower's ServerApp did not come; starting another one")
            continue
        while not orders.wait_for(here=False, seconds=60.0):
            pass
        if not orders.over:
            _log.warning("Flower's ServerApp is gone; starting another one")

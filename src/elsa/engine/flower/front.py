"""What Flower shows to the network: the way for SuperNodes alone.

A SuperLink serves everything at one port, and asks no one who starts a run there who they are. So
it listens on loopback only; this passes on what is for its Fleet API and nothing else.
"""

import asyncio
import re
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic, sleep

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from elsa.errors import ConfigError
from elsa.wire.rpc.security import Tls

_VERB = re.compile(r"[a-z]+(-[a-z]+)*")
_REGISTERING = {"register-node", "unregister-node"}
"""What only the cloud does, on loopback."""
_DROPPED = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding"}
_START = 60.0
_REQUEST = 120.0
"""Seconds for the front to listen, and for one request."""
_LAST = 0.1
"""Seconds for connections that are broken off to be closed."""


class Front:
    """Listens from its making on until `close`."""

    def __init__(self, address: str, security: Tls, behind: str, limit: int) -> None:
        """Listen.

        Args:
            address: HOST:PORT to listen at.
            security: who the cloud is.
            behind: HOST:PORT of the SuperLink.
            limit: bytes of the largest request that is passed on.

        Raises:
            ConfigError: the address cannot be had.
        """
        host, _, port = address.rpartition(":")
        self._limit = limit
        self._behind = httpx.AsyncClient(
            base_url=f"https://{behind}",
            verify=ssl.create_default_context(cafile=str(security.authority)),
            timeout=_REQUEST,
            trust_env=False,
        )
        app = Starlette(
            routes=[Route("/v1/fleet/{verb}", self._pass_on, methods=["POST"])],
            lifespan=self._connected,
        )
        config = uvicorn.Config(
            app,
            host.strip("[]"),
            int(port),
            ssl_keyfile=str(security.key),
            ssl_certfile=str(security.certificate),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=1,
            log_config=None,
            access_log=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="front", daemon=True)
        self._thread.start()
        until = monotonic() + _START
        while not self._server.started:
            if not self._thread.is_alive() or monotonic() > until:
                raise ConfigError(f"cannot listen at {address}: in use, or not of here")
            sleep(0.05)

    def close(self) -> None:
        """Listen no more."""
        self._server.should_exit = True
        self._thread.join(_START)

    def _serve(self) -> None:
        with suppress(SystemExit):  # how uvicorn says that it cannot listen
            asyncio.run(self._listen())

    async def _listen(self) -> None:
        await self._server.serve()
        for caller in list(self._server.server_state.connections):  # there when time was up
            caller.transport.abort()
        await asyncio.sleep(_LAST)

    @asynccontextmanager
    async def _connected(self, _: Starlette) -> AsyncIterator[None]:
        async with self._behind:
            yield

    async def _pass_on(self, request: Request) -> Response:
        verb = request.path_params["verb"]
        if not _VERB.fullmatch(verb) or verb in _REGISTERING:
            return Response(status_code=404)
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > self._limit:
                    return Response(status_code=413)
        except ClientDisconnect:
            return Response(status_code=400)
        headers = [(name, text) for name, text in request.headers.items() if name not in _DROPPED]
        try:
            answer = await self._behind.post(
                f"/v1/fleet/{verb}", content=bytes(body), headers=headers
            )
        except httpx.HTTPError:
            return Response(status_code=503)  # SuperNodes try again
        kept = {name: text for name, text in answer.headers.items() if name not in _DROPPED}
        kept.pop("content-encoding", None)
        return Response(answer.content, answer.status_code, kept)

"""Liveness and readiness, by the standard service grpc.health.v1.Health, without TLS.

It listens at a port of its own, so that a supervisor needs no certificate, and says nothing but
whether the process lives (service "") and whether it can do its work (service "ready").
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from elsa.errors import ConfigError, LinkError
from elsa.wire.rpc.options import local_address

READY = "ready"
State = Literal["serving", "not serving"]
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_WATCHERS = 4
"""Calls at once; one that watches keeps its thread."""


class HealthServer:
    """Answers from the start that the process lives, and that it is not ready yet.

    Attributes:
        address: HOST:PORT where it listens, with the real port if 0 was asked for.
    """

    def __init__(self, address: str) -> None:
        """Listen.

        Args:
            address: PORT for 127.0.0.1, or HOST:PORT.

        Raises:
            ConfigError: it is none, or cannot be had.
        """
        host, port = local_address(address)
        self._health = health.HealthServicer()
        self._health.set("", _SERVING)
        self._health.set(READY, _NOT_SERVING)
        self._server = grpc.server(
            ThreadPoolExecutor(_WATCHERS, "health"),
            options=[("grpc.so_reuseport", 0)],
            maximum_concurrent_rpcs=_WATCHERS,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise ConfigError(f"cannot listen at {address}: in use, or not of here") from error
        self.address = f"{host}:{port}"
        self._server.start()

    def set_ready(self, is_ready: bool) -> None:
        """Say from now on whether the work can be done."""
        self._health.set(READY, _SERVING if is_ready else _NOT_SERVING)

    def close(self) -> None:
        """Say that nothing is served, and end."""
        self._health.enter_graceful_shutdown()
        self._server.stop(0.5).wait()


def ask_health(address: str, service: str = READY, seconds: float = 3.0) -> State:
    """What a health server says of itself.

    Args:
        address: PORT of 127.0.0.1, or HOST:PORT.
        service: "ready", or "" for whether the process lives.
        seconds: until it is given up.

    Raises:
        ConfigError: the address is none.
        LinkError: no answer.
    """
    host, port = local_address(address)
    with grpc.insecure_channel(f"{host}:{port}") as opened:
        stub = health_pb2_grpc.HealthStub(opened)
        try:
            found = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=seconds)
        except grpc.RpcError as error:
            raise LinkError(f"no answer of {host}:{port}: {error.details()}") from error
    return "serving" if found.status == _SERVING else "not serving"

"""What a supervisor that knows only grpc.health.v1.Health hears."""

from collections.abc import Iterator

import pytest

from elsa.errors import ConfigError, LinkError
from elsa.wire.rpc.health import HealthServer, ask_health


@pytest.fixture
def server() -> Iterator[HealthServer]:
    made = HealthServer("127.0.0.1:0")
    yield made
    made.close()


def test_it_lives_from_the_start_and_is_ready_only_while_it_says_so(server: HealthServer) -> None:
    seen = [(ask_health(server.address, ""), ask_health(server.address))]
    for is_ready in (True, False):
        server.set_ready(is_ready)
        seen.append((ask_health(server.address, ""), ask_health(server.address)))
    assert seen == [
        ("serving", "not serving"),
        ("serving", "serving"),
        ("serving", "not serving"),
    ]


def test_any_client_of_the_standard_service_can_ask(server: HealthServer) -> None:
    import grpc
    from grpc_health.v1 import health_pb2

    with grpc.insecure_channel(server.address) as channel:
        ask = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        assert ask(health_pb2.HealthCheckRequest(), timeout=20).status == 1
        with pytest.raises(grpc.RpcError) as refused:
            ask(health_pb2.HealthCheckRequest(service="other"), timeout=20)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_port_alone_is_this_machine_and_a_taken_one_is_named(server: HealthServer) -> None:
    port = server.address.rpartition(":")[2]
    assert ask_health(port, "") == "serving"
    with pytest.raises(ConfigError, match=f"cannot listen at {port}"):
        HealthServer(port)
    for wrong in ("", "host:", ":7002", "70000", "0.0.0.0:x"):
        with pytest.raises(ConfigError, match="allowed: PORT"):
            HealthServer(wrong)


def test_nobody_there_is_an_error_that_names_the_address() -> None:
    server = HealthServer("0")
    server.close()
    with pytest.raises(LinkError, match=server.address):
        ask_health(server.address)

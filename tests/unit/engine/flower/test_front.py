"""What the network reaches of a SuperLink: its Fleet API and nothing else."""

import ssl
import threading
from collections.abc import Iterator
from time import sleep

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from elsa.engine.flower.children import free_port
from elsa.engine.flower.front import Front
from elsa.errors import ConfigError
from elsa.wire.rpc.authority import Party, issue, make_authority
from elsa.wire.rpc.security import Tls


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder = tmp_path_factory.mktemp("certificates")
    make_authority(folder)
    issue(folder, Party("cloud", "cloud", ("127.0.0.1",)), 1)
    return Tls(folder, "cloud")


@pytest.fixture(scope="module")
def behind(tls: Tls) -> Iterator[tuple[str, list[str]]]:
    """A stand-in for a SuperLink, and the paths that reach it."""
    reached: list[str] = []

    async def take(request: Request) -> Response:
        reached.append(request.url.path)
        return Response(await request.body(), headers={"back": request.headers.get("there", "")})

    port = free_port()
    app = Starlette(routes=[Route("/{rest:path}", take, methods=["POST", "GET"])])
    files = {"ssl_keyfile": str(tls.key), "ssl_certfile": str(tls.certificate)}
    more = {"ws": "none", "log_config": None, "timeout_graceful_shutdown": 1}
    config = uvicorn.Config(app, "127.0.0.1", port, **more, **files)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        sleep(0.02)
    yield f"127.0.0.1:{port}", reached
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def client(tls: Tls, behind: tuple[str, list[str]]) -> Iterator[httpx.Client]:
    address = f"127.0.0.1:{free_port()}"
    front = Front(address, tls, behind[0], 1000)
    verify = ssl.create_default_context(cafile=str(tls.authority))
    with httpx.Client(base_url=f"https://{address}", verify=verify, trust_env=False) as made:
        yield made
    with pytest.raises(ConfigError, match="cannot listen"):
        Front(address, tls, behind[0], 1000)
    front.close()


def test_the_fleet_api_passes_with_body_and_headers(client: httpx.Client) -> None:
    answer = client.post("/v1/fleet/pull-messages", content=b"\x00\xff", headers={"there": "x"})
    assert (answer.status_code, answer.content, answer.headers["back"]) == (200, b"\x00\xff", "x")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/runtime/push-messages",
        "/v1/fleet/register-node",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/..%2fcontrol%2fstart-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/docs",
        "/",
    ],
)
def test_nothing_else_does(client: httpx.Client, behind: tuple[str, list[str]], path: str) -> None:
    before = list(behind[1])
    request = client.build_request("POST", "/", content=b"")
    request.url = request.url.copy_with(raw_path=path.encode())
    assert client.send(request).status_code in (404, 405)
    assert behind[1] == before


def test_a_request_over_the_limit_is_refused(client: httpx.Client) -> None:
    assert client.post("/v1/fleet/push-object", content=bytes(1001)).status_code == 413
    assert client.post("/v1/fleet/push-object", content=bytes(1000)).status_code == 200

"""A party that is asked to stop says what is kept, and its supervisor that it is not ready."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509

from elsa.engine.deploy.cloud import run_cloud
from elsa.engine.deploy.device import run_device
from elsa.engine.deploy.edge import run_edge
from elsa.engine.deploy.supervision import Supervision
from elsa.errors import Interrupted, LinkError, UntrustedError
from elsa.record.checkpoint import load_checkpoint
from elsa.wire.rpc.security import Tls


@pytest.fixture
def alone(world: Callable[..., Any]) -> Any:
    return world("federation.edges=1", "federation.devices=1", "deploy.reconnect_seconds=1")


def test_edge_says_what_is_lost_and_is_ready_only_while_it_serves(alone: Any) -> None:
    said: list[str] = []
    ready: list[bool] = []
    security = Tls(alone.folder / "certs", "edge-0")
    watched = Supervision("0", ready.append)
    stop = iter([False, True])
    run_edge(
        alone.config,
        "127.0.0.1:0",
        security,
        watched=watched,
        say=said.append,
        stop=lambda: next(stop),
    )
    assert ready == [True, False]
    assert any(line.startswith("metrics at 127.0.0.1:") for line in said)
    assert said[-1].startswith("edge-0 stopped; the cloud keeps every finished round.")


def test_device_says_that_its_rows_are_where_they_were(alone: Any) -> None:
    said: list[str] = []
    data = alone.folder / "device-0.csv"
    stop = iter([False, True])
    run_device(
        alone.config,
        alone.addresses,
        data,
        Tls(alone.folder / "certs", "device-0"),
        say=said.append,
        stop=lambda: next(stop),
    )
    assert "trying again" in said[-2]
    assert said[-1].startswith(f"device-0 stopped; its rows lie in {data} as before.")


def test_device_whose_way_is_gone_when_the_run_ends_gives_up_and_says_so(
    world: Callable[..., Any], relay: Callable[..., Any]
) -> None:
    there = world(
        "federation.edges=1",
        "federation.devices=1",
        "deploy.reconnect_seconds=1",
        "deploy.round_seconds=4",
    )
    way = relay(there.addresses["edge-0"])
    over, said = threading.Event(), list[str]()
    edge = threading.Thread(
        target=run_edge,
        args=(there.config, there.addresses["edge-0"], Tls(there.folder / "certs", "edge-0")),
        kwargs={"stop": over.is_set},
    )

    def listen(line: str) -> None:
        said.append(line)
        if "is at edge-0" in line:  # it stays for longer than it may be out of reach
            threading.Timer(5.0, way.close).start()

    edge.start()
    try:
        with pytest.raises(LinkError, match=r"let it in for 4 s \(deploy.round_seconds\)"):
            run_device(
                there.config,
                {"edge-0": way.address},
                there.folder / "device-0.csv",
                Tls(there.folder / "certs", "device-0"),
                say=listen,
            )
    finally:
        over.set()
        edge.join(60)
    lost = said.index(next(line for line in said if "is at edge-0" in line))
    assert sum("none of edge-0 answers" in line for line in said[lost:]) > 1  # it did try


def test_device_leaves_an_edge_whose_certificate_is_revoked_and_says_why(alone: Any) -> None:
    over, certs = threading.Event(), alone.folder / "certs"
    edge = threading.Thread(
        target=run_edge,
        args=(alone.config, alone.addresses["edge-0"], Tls(certs, "edge-0")),
        kwargs={"stop": over.is_set},
    )
    serial = x509.load_pem_x509_certificate((certs / "edge-0.pem").read_bytes()).serial_number

    def listen(line: str) -> None:
        if "is at edge-0" in line:
            (certs / "revoked.txt").write_text(f"{serial:x} stolen in May\n", encoding="utf-8")

    edge.start()
    try:
        with pytest.raises(UntrustedError, match=r"revoked\.txt: .*CN=edge-0.* stolen in May"):
            run_device(
                alone.config,
                alone.addresses,
                alone.folder / "device-0.csv",
                Tls(certs, "device-0"),
                say=listen,
            )
    finally:
        over.set()
        edge.join(60)


def test_cloud_names_the_command_that_goes_on(alone: Any) -> None:
    ready: list[bool] = []
    out = alone.folder / "run"
    with pytest.raises(Interrupted, match=f"--out {out}") as stopped:
        run_cloud(
            alone.config,
            alone.addresses,
            Tls(alone.folder / "certs", "cloud"),
            out=out,
            watched=Supervision("0", ready.append),
            stop=lambda: True,
        )
    assert "elsa resume" not in str(stopped.value)
    assert ready == [True, False]
    assert load_checkpoint(out).round == 0

"""A party that is asked to stop says what is kept, and its supervisor that it is not ready."""

from collections.abc import Callable
from typing import Any

import pytest

from elsa.engine.deploy.cloud import run_cloud
from elsa.engine.deploy.device import run_device
from elsa.engine.deploy.edge import run_edge
from elsa.engine.deploy.supervision import Supervision
from elsa.errors import Interrupted
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

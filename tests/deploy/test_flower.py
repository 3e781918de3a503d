"""Flower between cloud and edges, with its real processes: the same adapters."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from elsa.engine.deploy.cloud import run_cloud
from elsa.engine.deploy.device import run_device
from elsa.engine.deploy.edge import run_edge
from elsa.wire.rpc.security import Tls


def test_over_flower_a_device_an_edge_ends_exactly_where_the_simulation_does(
    world: Callable[..., Any],
) -> None:
    # The parties are threads here: what is to be shown is that Flower's processes change nothing.
    there = world(
        "federation.edges=2",
        "federation.devices=2",
        "wire.preset=balanced",
        "deploy.link=flower",
        "deploy.round_seconds=900",
        "deploy.reconnect_seconds=300",
        "deploy.answer_seconds=300",
    )

    def party(name: str) -> Tls:
        return Tls(there.folder / "certs", name)

    expected = there.simulated()
    failed = threading.Event()
    with ThreadPoolExecutor(5) as pool, _setting(failed):
        ended = []
        for n, (name, address) in enumerate(there.addresses.items()):
            data, device = there.folder / f"device-{n}.csv", party(f"device-{n}")
            ended += [
                pool.submit(
                    run_edge,
                    there.config,
                    address,
                    party(name),
                    cloud=there.meeting,
                    stop=failed.is_set,
                ),
                pool.submit(
                    run_device, there.config, {name: address}, data, device, stop=failed.is_set
                ),
            ]
        out = there.folder / "run"
        run_cloud(there.config, there.meeting, party("cloud"), out=out)
        for each in ended:
            each.result(600)
    told = (out / "events.jsonl").read_text(encoding="utf-8")
    assert (told.count('"kind": "round_finished"'), told.count("device_lost")) == (2, 0)
    assert there.furthest(expected) == 0
    assert torch.stack([value.abs().sum() for value in expected.values()]).sum() > 0
    assert (out / "adapter" / "adapter_config.json").is_file()


@contextmanager
def _setting(failed: threading.Event) -> Iterator[None]:
    """Let the parties that wait for one that failed end too."""
    try:
        yield
    except BaseException:
        failed.set()
        raise

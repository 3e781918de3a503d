"""Split over gRPC is split in process, to the bit; broken streams change nothing."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from elsa.engine.deploy.cloud import run_cloud
from elsa.engine.deploy.device import run_device
from elsa.engine.deploy.edge import run_edge
from elsa.wire.rpc.security import Tls

TOLERANCE = 1e-6
"""Where several devices share an edge, the order of its sums depends on who was first."""


def play(there: Any, addresses: dict[str, str]) -> list[str]:
    """Run all parties in threads, devices calling these addresses; what they said."""
    said: list[str] = []
    failed: list[BaseException] = []
    over = threading.Event()

    def party(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)
            over.set()

    def start(name: str, work: Callable[..., object], *given: Any) -> threading.Thread:
        security = Tls(there.folder / "certs", name)

        def run() -> None:
            work(there.config, *given, security, say=said.append, stop=over.is_set)

        thread = threading.Thread(target=party, args=(run,), name=name)
        thread.start()
        return thread

    threads = [start(edge, run_edge, address) for edge, address in there.addresses.items()]
    for name, address in addresses.items():
        threads.append(start(name, run_device, address, there.folder / f"{name}.csv"))
    security = Tls(there.folder / "certs", "cloud")
    party(
        lambda: run_cloud(
            there.config, there.addresses, security, out=there.folder / "run", stop=over.is_set
        )
    )
    for thread in threads:
        thread.join(60)
    over.set()
    assert not failed, failed
    assert not any(thread.is_alive() for thread in threads)
    return said


@pytest.mark.parametrize("preset", ["exact", "balanced"])
def test_broken_streams_change_nothing(
    world: Callable[..., Any], relay: Callable[..., Any], preset: str
) -> None:
    there = world("federation.edges=2", "federation.devices=2", f"wire.preset={preset}")
    edges = list(there.addresses.values())
    relays = [relay(edge, cut_after=20_000) for edge in edges]
    said = play(there, {f"device-{n}": it.address for n, it in enumerate(relays)})
    assert min(it.connections for it in relays) >= 3  # broken twice at least
    assert not any("trying again" in line for line in said)
    assert there.furthest(there.simulated()) == 0


def test_devices_of_one_edge_end_where_the_simulation_does(world: Callable[..., Any]) -> None:
    there = world("federation.edges=1", "federation.devices=3")
    (edge,) = there.addresses.values()
    play(there, {f"device-{n}": edge for n in range(3)})
    assert there.furthest(there.simulated()) <= TOLERANCE

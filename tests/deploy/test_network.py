"""Split over gRPC is split in process, to the bit; broken streams change nothing."""

import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import pytest

Play = Callable[..., list[str]]
PROBES = ("cluster.probe_count=16", "cluster.dimensions=4")
TOLERANCE = 1e-6
"""Where several devices share an edge, the order of its sums depends on who was first."""


@pytest.mark.parametrize(("preset", "in_flight"), [("exact", 1), ("balanced", 3)])
def test_broken_streams_change_nothing(
    world: Callable[..., Any], relay: Callable[..., Any], play: Play, preset: str, in_flight: int
) -> None:
    how = (f"wire.preset={preset}", f"train.in_flight={in_flight}")
    there = world("federation.edges=2", "federation.devices=2", *how)
    relays = {edge: relay(at, cut_after=10_000) for edge, at in there.addresses.items()}
    said = play(there, {f"device-{n}": {it: relays[it].address} for n, it in enumerate(relays)})
    assert min(it.connections for it in relays.values()) > 4  # one of pings; broken thrice or more
    assert not any("trying again" in line for line in said)
    assert there.furthest(there.simulated()) == 0


def test_slow_network_that_half_closes_changes_nothing(
    world: Callable[..., Any], relay: Callable[..., Any], play: Play
) -> None:
    there = world("federation.edges=2", "federation.devices=2", "cluster.trust=true", *PROBES)
    relays = {edge: relay(at, delay=0.02) for edge, at in there.addresses.items()}
    over = threading.Event()

    def break_often() -> None:
        for _ in range(6):
            over.wait(1.0)
            for each in relays.values():
                each.half_close()

    breaking = threading.Thread(target=break_often)
    breaking.start()
    try:
        play(there, {f"device-{n}": {it: relays[it].address} for n, it in enumerate(relays)})
    finally:
        over.set()
        breaking.join(10)
    assert there.furthest(there.simulated()) == 0


@pytest.mark.parametrize("layout", ["two-part", "whole"])
def test_splits_to_compare_with_end_where_the_simulation_does(
    world: Callable[..., Any], play: Play, layout: str
) -> None:
    # where no hidden state crosses a cut, nothing needs the public text of its codecs
    wire = ("wire.preset=balanced", "wire.public=none.csv") if layout == "whole" else ()
    there = world("federation.edges=2", "federation.devices=2", f"split.layout={layout}", *wire)
    said = play(
        there, {f"device-{n}": {it: at} for n, (it, at) in enumerate(there.addresses.items())}
    )
    assert there.furthest(there.simulated()) == 0
    shown = [line for line in said if "shows the edge the label" in line]
    assert len(shown) == (2 if layout == "two-part" else 0)


def test_devices_with_splits_of_their_own_end_where_the_simulation_does(
    world: Callable[..., Any], play: Play
) -> None:
    there = world("federation.edges=2", "federation.devices=2")
    deep = there.config.split.model_copy(update={"bottom": 2, "top": 0})
    own = {"device-1": there.config.model_copy(update={"split": deep})}
    homes = {f"device-{n}": {it: at} for n, (it, at) in enumerate(there.addresses.items())}
    said = play(there, homes, configs=own)
    assert not any("trying again" in line for line in said)
    assert there.furthest(there.simulated()) == 0


def test_devices_of_one_edge_end_where_the_simulation_does(
    world: Callable[..., Any], play: Play
) -> None:
    there = world("federation.edges=1", "federation.devices=3")
    play(there, {f"device-{n}": there.addresses for n in range(3)})
    assert there.furthest(there.simulated()) <= TOLERANCE


def test_device_whose_edge_is_out_of_reach_goes_to_another_with_all_it_has(
    world: Callable[..., Any], relay: Callable[..., Any], play: Play
) -> None:
    there = world(
        "federation.edges=2",
        "federation.devices=2",
        "federation.rounds=4",
        "evaluate.every=4",
        "deploy.reconnect_seconds=5",
    )
    way = relay(there.addresses["edge-0"])
    told: list[Any] = []
    said: list[str] = []

    def listen(event: Any) -> None:
        told.append(event)
        if event.kind == "round_finished" and event.round == 1:
            way.close()  # nothing listens there any more
            until = monotonic() + 100
            while not any(line.startswith("device-0 is at edge-1") for line in said):
                assert monotonic() < until, said
                sleep(0.1)

    both = there.addresses
    play(there, {"device-0": both | {"edge-0": way.address}, "device-1": both}, listen, said)
    finished = [it for it in told if it.kind == "round_finished"]
    assert [it.round for it in finished] == [0, 1, 2, 3]
    placed = [it for it in told if it.kind == "device_placed" and it.round >= 0]
    assert {it.device for it in placed} == {"device-0"}
    assert placed[-1].edge == "edge-1"
    assert finished[-1].samples == finished[0].samples  # both took part again


@pytest.mark.parametrize("strategy", ["latency", "behaviour"])
def test_devices_go_where_the_cloud_places_them(
    world: Callable[..., Any], play: Play, strategy: str
) -> None:
    there = world(
        "federation.edges=2",
        "federation.devices=4",
        "federation.rounds=3",
        f"cluster.strategy={strategy}",
        "cluster.clusters=2",
        "cluster.trust=true",
        "cluster.every=1",
        "cluster.margin=0.0",
        "evaluate.every=3",
        *PROBES,
    )
    told: list[Any] = []
    said = play(there, {f"device-{n}": there.addresses for n in range(4)}, told.append)
    at = {it.device: it.edge for it in told if it.kind == "device_placed"}
    assert sorted(at.values()) == ["edge-0", "edge-0", "edge-1", "edge-1"]
    assert len([it for it in told if it.kind == "device_judged"]) == 4 * 2 * 3
    assert not [it for it in told if it.kind == "device_lost"]
    if strategy == "latency":
        for device, edge in at.items():  # who was told to move has said hello there
            assert any(line.startswith(f"{device} is at {edge},") for line in said)

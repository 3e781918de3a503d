"""Real processes on loopback, mutual TLS on: they end where the simulation does, or say why not."""

import signal
from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]


def test_a_device_an_edge_ends_exactly_where_the_simulation_does(world: Make) -> None:
    there = world("federation.edges=2", "federation.devices=2", "wire.preset=balanced")
    parties = [there.edge(0), there.edge(1), there.device(0), there.device(1), there.cloud()]
    expected = there.simulated()
    assert [party.end() for party in parties] == [0] * 5, "\n".join(it.log for it in parties)
    assert there.furthest(expected) == 0
    assert (there.folder / "run" / "adapter" / "adapter_config.json").is_file()


def test_frozen_device_is_left_out_and_says_nothing_when_it_thaws(world: Make) -> None:
    there = world(
        "federation.edges=1",
        "federation.devices=2",
        "federation.local_steps=200",
        "deploy.answer_seconds=6",
        "deploy.reconnect_seconds=20",
    )
    edge, frozen, other = there.edge(0), there.device(0), there.device(1)
    for device in (frozen, other):
        device.wait_for("is at edge-0")
    cloud = there.cloud()
    frozen.wait_for("train 0.0 begins")
    frozen.signal(signal.SIGSTOP)
    assert cloud.end() == 0, cloud.log
    frozen.signal(signal.SIGCONT)
    assert [edge.end(), other.end()] == [0, 0]
    told = (there.folder / "run" / "events.jsonl").read_text(encoding="utf-8")
    assert "device-0" in told.partition("device_lost")[2] or "not heard for" in edge.log


def test_device_of_another_precision_is_refused_at_once_and_told_why(world: Make) -> None:
    there = world("federation.edges=1", "federation.devices=1")
    edge = there.edge(0)
    edge.wait_for("listens at")
    device = there.device(0, "--set", "model.precision=bfloat16", "--set", "adapter.rank=4")
    assert device.end() == 1
    assert "model.precision is bfloat16 at device-0 and float32 at edge-0" in device.log
    assert "adapter.rank is 4 at device-0 and 2 at edge-0" in device.log
    assert "model.precision is bfloat16 at device-0 and float32 at edge-0" in edge.log

"""Numbers that a scrape shows, against what was done to get them."""

import urllib.request
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

from elsa.core.codec import Frame, Identity
from elsa.engine.deploy.metrics import CloudMetrics, EdgeMetrics, scraped
from elsa.errors import ConfigError, ProtocolError
from elsa.record import events
from elsa.wire.messages import (
    Accepted,
    Activations,
    EdgeUpdate,
    Gradients,
    Message,
    Next,
    RoundOrder,
    Task,
)
from elsa.wire.meter import Meter
from elsa.wire.rpc.client import Rpc
from elsa.wire.rpc.security import Loopback
from elsa.wire.rpc.server import RpcServer, Watch
from elsa.wire.serde import encode
from elsa.wire.transport import Link, Passage

LINK = Link("device_edge", "device-0", "edge-0")
torch = pytest.importorskip("torch")
PACKET = Identity().encode(torch.zeros(3, 4), Frame((3,)))


class Rounds:
    """Stands in for `EdgeRounds`: what is read off it at a scrape."""

    connected, queued, pending = 2, 3, 1


def read(address: str) -> dict[tuple[str, tuple[str, ...]], float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in parsed(text)
        for sample in family.samples
    }


def step(number: int) -> list[Message]:
    return [Activations(number, True, (3,), PACKET), Gradients(number, PACKET)]


def handler(_: str, request: Message) -> Message:
    match request:
        case Activations() | Gradients():
            return request
        case RoundOrder():
            return EdgeUpdate(request.round, {}, 1.0, ())
        case Next():
            raise ProtocolError("out of turn")
        case _:
            return Accepted()


@pytest.fixture
def metrics() -> EdgeMetrics:
    return EdgeMetrics(Rounds())  # type: ignore[arg-type]


def test_edge_counts_steps_bytes_rounds_and_refusals_of_real_links(metrics: EdgeMetrics) -> None:
    told: list[tuple[str, str]] = []
    handle, watch = metrics.observe(handler, Watch(refused=lambda *it: told.append(it)))
    security = Loopback("edge-0")
    names = ["device-0", "cloud"]
    with (
        RpcServer(handle, "127.0.0.1:0", security, callers=names, watch=watch) as server,
        scraped(metrics.registry, "0") as address,
    ):
        device = Rpc(server.address, LINK, Loopback("device-0"))
        for number in range(3):
            for request in step(number):
                device.call(request)
        with pytest.raises(ProtocolError):
            device.call(Next())
        cloud = Rpc(server.address, Link("edge_cloud", "edge-0", "cloud"), Loopback("cloud"))
        cloud.call(RoundOrder(0, 1, 1, ("device-0",), {}))
        stranger = Link("device_edge", "device-9", "edge-0")
        with pytest.raises(ProtocolError):
            Rpc(server.address, stranger, Loopback("device-9")).call(Next())
        seen = read(address)
        for link in (device, cloud):
            link.close()
    sent = sum(len(encode(it)) for number in range(3) for it in step(number))
    assert seen["elsa_steps_total", ()] == seen["elsa_step_seconds_count", ()] == 3
    assert seen["elsa_bytes_total", ("device_to_edge",)] == sent + len(encode(Next()))
    assert seen["elsa_bytes_total", ("edge_to_device",)] > sent
    assert seen["elsa_bytes_total", ("cloud_to_edge",)] > 0
    assert seen["elsa_rounds_total", ()] == 1
    assert seen["elsa_refused_total", ("ProtocolError",)] == 1
    assert seen["elsa_refused_total", ("not let in",)] == 1
    assert told == [("device-0", "ProtocolError: out of turn")]
    gauges = ("connected_devices", "queue_depth", "pending_forwards")
    assert [seen[f"elsa_{name}", ()] for name in gauges] == [2, 3, 1]
    assert seen["process_resident_memory_bytes", ()] > 1e6


def test_step_that_never_ended_does_not_lengthen_the_next(
    metrics: EdgeMetrics, monkeypatch: Any
) -> None:
    from elsa.engine.deploy import metrics as module

    clock = iter([0.0, 100.0, 101.0, 102.0])
    monkeypatch.setattr(module, "monotonic", lambda: next(clock))
    handle, _ = metrics.observe(handler, Watch())
    first, last = step(0)
    for request in (first, first, last):
        handle("device-0", request)
    assert metrics.registry.get_sample_value("elsa_step_seconds_sum") == 2


def test_cloud_counts_rounds_losses_scores_and_what_its_meter_saw() -> None:
    meter = Meter()
    metrics = CloudMetrics(meter)
    link = Link("edge_cloud", "edge-0", "cloud")
    meter(Passage(link, "down", Task("end", 0, 0), bytes(70)))
    meter(Passage(link, "up", Accepted(), bytes(30)))
    for event in (
        events.RoundStarted(0, ("d",)),
        events.DeviceLost(0, "edge-0", "d", "away"),
        events.RoundFinished(0, 1.5, 40, 2.0, 0.0, {}),
        events.RoundFinished(1, 0.5, 40, 20.0, 0.0, {}),
        events.Evaluated(1, 0.7, accuracy_mean_device=0.9),
    ):
        metrics.event(event)
    value = metrics.registry.get_sample_value
    assert value("elsa_rounds_total") == 2
    assert value("elsa_samples_total") == 80
    assert value("elsa_devices_lost_total") == 1
    assert value("elsa_training_loss") == 0.5
    assert value("elsa_score", {"score": "accuracy_mean_device"}) == 0.9
    assert value("elsa_score", {"score": "accuracy"}) is None
    assert value("elsa_bytes_total", {"hop": "cloud_to_edge"}) == 70
    assert value("elsa_bytes_total", {"hop": "edge_to_cloud"}) == 30


def test_taken_port_is_named(metrics: EdgeMetrics) -> None:
    with (
        scraped(metrics.registry, "0") as address,
        pytest.raises(ConfigError, match=address),
        scraped(metrics.registry, address),
    ):
        pass

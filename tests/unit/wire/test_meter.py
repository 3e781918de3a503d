"""The meter: real bytes by hop, and the padded cost checked by hand."""

import json
from dataclasses import dataclass

import pytest
import torch

from elsa.core.codec import Frame, Identity
from elsa.wire.messages import (
    Accepted,
    Activations,
    EdgeUpdate,
    Gradients,
    LocalPlan,
    Message,
    Ready,
    RoundOrder,
    Update,
)
from elsa.wire.meter import Meter, Traffic
from elsa.wire.serde import encode
from elsa.wire.transport import Link, Passage

LENGTHS = (5, 2)
STATES = Identity().encode(torch.ones(7, 3), Frame(LENGTHS))
H1 = Activations(0, True, LENGTHS, STATES)
G2 = Gradients(0, STATES)
ADAPTERS = {"a": torch.zeros(2, 3, dtype=torch.float16), "b": torch.zeros(())}
DEVICE = Link("device_edge", "device-0", "edge-0")
EDGE = Link("edge_cloud", "edge-0", "cloud")


@dataclass
class Bench:
    meter: Meter

    def ask(self, link: Link, request: Message, answer: Message) -> None:
        for is_request, message in ((True, request), (False, answer)):
            direction = link.direction(request=is_request)
            data = encode(message)
            assert self.meter(Passage(link, direction, message, data)) is data


@pytest.fixture
def bench() -> Bench:
    return Bench(Meter())


def test_hops_are_the_frames_that_passed(bench: Bench) -> None:
    order, report = RoundOrder(0, 1, 1, ("device-0",), ADAPTERS), EdgeUpdate(0, ADAPTERS, 1.0, ())
    bench.ask(DEVICE, H1, Accepted())
    bench.ask(EDGE, order, report)
    assert bench.meter.by_hop() == {
        "device_to_edge": len(encode(H1)),
        "edge_to_device": len(encode(Accepted())),
        "cloud_to_edge": len(encode(order)),
        "edge_to_cloud": len(encode(report)),
        "uncompressed_padded_float32": 2 * 5 * 3 * 4 + 2 * 7 * 4,
    }


@pytest.mark.parametrize(
    ("message", "padded"),
    [
        (H1, 2 * 5 * 3 * 4),
        (LocalPlan(0, 0, 1, 0, ADAPTERS), 7 * 4),
        (Update(0, 0, ADAPTERS, 1, 1, 0.0), 7 * 4),
        (Ready(0, 0, 1, 1), 0),
        (Accepted(), 0),
    ],
)
def test_padded_cost_of_a_message(bench: Bench, message: Message, padded: int) -> None:
    bench.ask(DEVICE, message, Accepted())
    assert bench.meter.total(kind=type(message).__name__).padded == padded


def test_gradients_are_padded_like_the_activations_of_their_own_link(bench: Bench) -> None:
    other = Link("device_edge", "device-1", "edge-0")
    short = Activations(0, True, (1,) * 7, STATES)
    bench.ask(DEVICE, H1, H1)
    bench.ask(other, short, short)
    bench.ask(DEVICE, G2, G2)
    bench.ask(other, G2, G2)
    gradients = {
        name: bench.meter.total(below=name, kind="Gradients").padded
        for name in ("device-0", "device-1")
    }
    assert gradients == {"device-0": 2 * (2 * 5 * 3 * 4), "device-1": 2 * (7 * 1 * 3 * 4)}


def test_counts_are_kept_by_every_field_of_a_flow(bench: Bench) -> None:
    bench.ask(DEVICE, H1, H1)
    bench.meter.phase = "evaluate"
    bench.ask(DEVICE, Ready(0, 0, 1, 1), LocalPlan(0, 0, 0, 0, {}))
    total = bench.meter.total
    assert total().frames == 4
    assert total(phase="train") == total(kind="Activations")
    assert total(phase="evaluate", direction="up").bytes == len(encode(Ready(0, 0, 1, 1)))
    assert total(tier="edge_cloud") == Traffic()
    assert bench.meter.by_hop(phase="evaluate")["uncompressed_padded_float32"] == 0
    sums = bench.meter.totals("below", "phase")
    assert sums == {
        ("device-0", "train"): total(phase="train"),
        ("device-0", "evaluate"): total(phase="evaluate"),
    }
    with pytest.raises(TypeError, match="counted by round"):
        total(round="0")


def test_restored_meter_goes_on_from_its_state(bench: Bench) -> None:
    bench.ask(DEVICE, H1, Accepted())
    state = json.loads(json.dumps(bench.meter.state()))
    bench.ask(EDGE, Accepted(), Accepted())
    again = Bench(Meter())
    again.ask(Link("device_edge", "device-9", "edge-0"), H1, H1)
    again.meter.restore(state)
    again.ask(EDGE, Accepted(), Accepted())
    assert again.meter.state() == bench.meter.state()
    assert again.meter.by_hop() == bench.meter.by_hop()


def test_what_two_meters_counted_is_what_one_would_have_counted(bench: Bench) -> None:
    here, there = Bench(Meter()), Bench(Meter())
    for link, request, meter in ((EDGE, H1, here), (DEVICE, H1, there), (DEVICE, G2, there)):
        bench.ask(link, request, Accepted())
        meter.ask(link, request, Accepted())
    here.meter.add(there.meter.state())
    assert here.meter.by_hop() == bench.meter.by_hop()
    here.meter.add(there.meter.state())
    assert here.meter.total(below="device-0").bytes == 2 * bench.meter.total(below="device-0").bytes

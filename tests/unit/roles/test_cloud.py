"""The cloud: who takes part, what it accepts, and that a hierarchy of means is one mean."""

from collections.abc import Mapping
from dataclasses import replace
from math import nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.aggregate import WeightedMean
from elsa.core.score import Tally
from elsa.errors import AdapterError, ProtocolError
from elsa.roles.cloud import Cloud, Schedule, tallies
from elsa.wire.messages import DeviceReport, DeviceScore, EdgeScores, EdgeUpdate, HeadWeight

START = {"a": torch.zeros(3), "b": torch.zeros(2, 2)}
ASSIGNMENT = {"edge-0": ("d0", "d1", "d2"), "edge-1": ("d3",), "edge-2": ("d4", "d5")}


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=generator) for name, value in START.items()}


def cloud(participation: float = 1.0, seed: int = 0, assignment: Mapping = ASSIGNMENT) -> Cloud:
    return Cloud(START, assignment, Schedule(2, 5, participation, seed))


def update(round_: int, adapters: Mapping[str, Tensor], weight: float, *devices: str) -> EdgeUpdate:
    reports = tuple(DeviceReport(device, 1, 1, 0.5) for device in devices)
    return EdgeUpdate(round_, adapters, weight, reports)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], v) for k, v in other.items())


@given(st.integers(1, 30), st.integers(1, 5), st.floats(0.01, 1.0), st.integers(0, 99))
def test_participants_are_a_share_of_all_and_at_least_one(
    devices: int, edges: int, share: float, seed: int
) -> None:
    names = [f"d{number}" for number in range(devices)]
    assignment = {f"e{number}": names[number::edges] for number in range(edges)}
    chosen = cloud(share, seed, assignment).participants()
    assert chosen <= set(names)
    assert abs(len(chosen) - max(1.0, share * devices)) <= 0.5
    assert cloud(share, seed, assignment).participants() == chosen


def test_participants_change_with_round_and_seed_and_with_nothing_else() -> None:
    def drawn(seed: int) -> list[set[str]]:
        it = cloud(0.5, seed)
        found = []
        for _ in range(20):
            found.append(it.participants())
            assert it.participants() == found[-1]
            it.close_round()
        return found

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len({frozenset(chosen) for chosen in drawn(1)}) > 5
    assert set().union(*drawn(1)) == {"d0", "d1", "d2", "d3", "d4", "d5"}


def test_restored_cloud_draws_and_gives_what_the_first_would() -> None:
    first, second = cloud(0.5), cloud(0.5)
    first.orders()
    first.receive("edge-0", update(0, tensors(1), 2.0))
    first.close_round()
    second.restore(first.adapters, 1)
    assert second.participants() == first.participants()
    assert second.round == 1
    assert equal(second.adapters, first.adapters)


def test_orders_go_to_edges_with_participants_only() -> None:
    it = cloud(1 / 3, seed=3)
    chosen, orders = it.participants(), it.orders()
    assert len(chosen) == 2
    assert {device for order in orders.values() for device in order.devices} == chosen
    for edge, order in orders.items():
        assert order.devices
        assert set(order.devices) <= set(ASSIGNMENT[edge])
        assert (order.round, order.edge_rounds, order.local_steps) == (0, 2, 5)
        assert equal(order.adapters, START)
    assert len(orders) < 3


def test_evaluation_orders_go_to_all_devices_and_testers() -> None:
    orders = cloud(1 / 3).evaluation_orders({"edge-1": ["test"]})
    assert {edge: order.devices for edge, order in orders.items()} == {
        "edge-0": ("d0", "d1", "d2"),
        "edge-1": ("d3", "test"),
        "edge-2": ("d4", "d5"),
    }


def test_mean_weighs_edges() -> None:
    it = cloud()
    it.receive("edge-0", update(0, {name: value + 1 for name, value in START.items()}, 3.0, "d0"))
    it.receive("edge-2", update(0, {name: value + 5 for name, value in START.items()}, 1.0, "d4"))
    reports = it.close_round()
    assert it.adapters["a"].tolist() == [2.0] * 3
    assert it.round == 1
    assert [report.device for report in reports] == ["d0", "d4"]
    assert it.close_round() == []
    assert it.adapters["a"].tolist() == [2.0] * 3
    it.receive("edge-0", update(2, tensors(1), 3.0))
    it.close_round()
    assert equal(it.adapters, tensors(1))


def test_hierarchical_mean_is_fedavg_over_all_devices() -> None:
    rows = {device: number + 1 for number, device in enumerate(sum(ASSIGNMENT.values(), ()))}
    it, flat = cloud(), WeightedMean()
    for edge, devices in ASSIGNMENT.items():
        mean = WeightedMean()
        for device in devices:
            for each in (mean, flat):
                each.add(tensors(rows[device]), rows[device])
        weight = float(sum(rows[device] for device in devices))
        it.receive(edge, update(0, mean.result(START), weight))
    it.close_round()
    # The edges' means are rounded to float32 on their way.
    torch.testing.assert_close(it.adapters, flat.result(START), rtol=0, atol=2**-22)


def test_edge_that_averaged_nothing_is_left_out() -> None:
    it = cloud()
    it.receive("edge-0", update(0, tensors(1), 2.0))
    it.receive("edge-1", update(0, tensors(2), 0.0, "d3"))
    reports = it.close_round()
    assert equal(it.adapters, tensors(1))
    assert [report.device for report in reports] == ["d3"]


def test_round_without_any_update_changes_nothing() -> None:
    it = cloud()
    it.receive("edge-0", update(0, tensors(1), 0.0))
    it.close_round()
    assert equal(it.adapters, START)
    assert it.round == 1


ODD = {
    "wrong round": (update(1, tensors(2), 1.0, "d3"), ProtocolError),
    "missing name": (update(0, {"a": torch.zeros(3)}, 1.0, "d3"), AdapterError),
    "extra name": (update(0, {**tensors(2), "c": torch.zeros(1)}, 1.0, "d3"), AdapterError),
    "wrong shape": (update(0, {**tensors(2), "b": torch.zeros(4)}, 1.0, "d3"), AdapterError),
    "NaN": (update(0, {**tensors(2), "b": torch.full((2, 2), torch.nan)}, 1.0, "d3"), AdapterError),
}


@pytest.mark.parametrize(("odd", "error"), ODD.values(), ids=ODD)
def test_update_that_does_not_fit_is_refused_and_changes_nothing(
    odd: EdgeUpdate, error: type[Exception]
) -> None:
    it = cloud()
    with pytest.raises(error):
        it.receive("edge-1", odd)
    it.receive("edge-0", update(0, tensors(1), 2.0, "d0"))
    with pytest.raises(error):
        it.receive("edge-1", odd)
    reports = it.close_round()
    assert equal(it.adapters, tensors(1))
    assert [report.device for report in reports] == ["d0"]


HEADS = {**START, "head.x.weight": torch.zeros(2), "head.y.weight": torch.zeros(3)}


def of_heads(weight: float, value: float, **heads: float) -> EdgeUpdate:
    """An update all of whose numbers are `value`, with the heads of these weights."""
    names = (*START, *(f"head.{head}.weight" for head in heads))
    adapters = {name: torch.full_like(HEADS[name], value) for name in names}
    return EdgeUpdate(0, adapters, weight, (), tuple(HeadWeight(*it) for it in heads.items()))


def test_each_head_is_weighed_by_the_devices_that_trained_it() -> None:
    it = Cloud(HEADS, ASSIGNMENT, Schedule(2, 5, 1.0, 0))
    it.receive("edge-0", of_heads(10.0, 1.0, x=2.0, y=8.0))
    it.receive("edge-1", of_heads(30.0, 5.0, x=6.0))
    it.close_round()
    assert {name: value.unique().tolist() for name, value in it.adapters.items()} == {
        "a": [4.0],
        "b": [4.0],
        "head.x.weight": [4.0],
        "head.y.weight": [1.0],
    }


def test_a_head_that_nobody_trained_stays() -> None:
    it = Cloud(HEADS, ASSIGNMENT, Schedule(2, 5, 1.0, 0))
    it.receive("edge-0", of_heads(10.0, 1.0, y=10.0))
    it.close_round()
    assert torch.equal(it.adapters["head.x.weight"], HEADS["head.x.weight"])


@pytest.mark.parametrize(
    "odd",
    [
        of_heads(1.0, 1.0, x=0.0),
        replace(of_heads(1.0, 1.0, x=1.0), heads=()),
        replace(of_heads(1.0, 1.0), heads=(HeadWeight("x", 1.0),)),
        replace(
            of_heads(1.0, 1.0, x=1.0),
            adapters={**of_heads(1.0, 1.0, x=1.0).adapters, "head.x.weight": torch.full((2,), nan)},
        ),
    ],
    ids=["no weight", "undeclared", "declared only", "NaN"],
)
def test_a_head_that_does_not_fit_is_refused_and_changes_nothing(odd: EdgeUpdate) -> None:
    it = Cloud(HEADS, ASSIGNMENT, Schedule(2, 5, 1.0, 0))
    with pytest.raises(AdapterError):
        it.receive("edge-0", odd)
    it.close_round()
    assert all(torch.equal(it.adapters[name], value) for name, value in HEADS.items())


def test_adapters_in_another_order_are_the_same() -> None:
    it = cloud()
    it.receive("edge-0", update(0, dict(reversed(tensors(1).items())), 2.0))
    it.close_round()
    assert list(it.adapters) == ["a", "b"]
    assert equal(it.adapters, tensors(1))


def test_tallies_are_sums_again() -> None:
    scores = EdgeScores(0, (DeviceScore("d0", 4, 3, 0.5), DeviceScore("d1", 0, 0, 0.0)))
    assert tallies([scores, EdgeScores(0, (DeviceScore("d3", 10, 1, 2.0),))]) == {
        "d0": Tally(4, 3, 2.0),
        "d1": Tally(0, 0, 0.0),
        "d3": Tally(10, 1, 20.0),
    }

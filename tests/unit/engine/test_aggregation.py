"""The words of [aggregate] and [adapter] become the objects they say."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elsa.config.aggregation import Aggregate
from elsa.config.schema import Adapter
from elsa.core.aggregate import WeightedMean
from elsa.core.product import Ordered, ProductMean
from elsa.core.robust import coordinate_median, krum, multi_krum, trimmed_mean
from elsa.engine.aggregation import cloud_mean, device_rank, edge_mean, server_optimizer

MIXED = Adapter(rank=8, ranks=(8, 4))
UPDATES = [{"a": torch.tensor([value])} for value in (0.0, 1.0, 3.0, 4.0, 7.0, 30.0, 100.0)]


@pytest.mark.parametrize("tier", ["edge", "cloud"])
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", 145 / 7),
        ("median", float(coordinate_median(UPDATES)["a"])),
        ("trimmed-mean", float(trimmed_mean(UPDATES, 0.3)["a"])),
        ("krum", float(krum(UPDATES, 2)["a"])),
        ("multi-krum", float(multi_krum(UPDATES, 2)["a"])),
    ],
)
def test_each_tier_has_its_rule_with_its_constants(tier: str, rule: str, expected: float) -> None:
    words = {f"{tier}_rule": rule, f"{tier}_byzantine": 2, "trim": 0.3}
    make = edge_mean if tier == "edge" else cloud_mean
    other = cloud_mean if tier == "edge" else edge_mean
    config = Aggregate.model_validate(words)
    assert isinstance(other(config, Adapter())(), WeightedMean)
    mean = make(config, Adapter())()
    for number, adapters in enumerate(UPDATES):
        mean.add(adapters, 1.0, str(number))
    assert float(mean.result(UPDATES[0])["a"]) == pytest.approx(expected)


def test_factors_are_ordered_only_for_mixed_ranks_and_apart_only_at_the_cloud() -> None:
    apart, product = Aggregate(), Aggregate(factors="product")
    made = {
        (config.factors, adapter.mixed, make.__name__): type(make(config, adapter)())
        for config in (apart, product)
        for adapter in (Adapter(), MIXED)
        for make in (edge_mean, cloud_mean)
    }
    assert made == {
        ("separate", False, "edge_mean"): WeightedMean,
        ("separate", False, "cloud_mean"): WeightedMean,
        ("separate", True, "edge_mean"): WeightedMean,
        ("separate", True, "cloud_mean"): Ordered,
        ("product", False, "edge_mean"): ProductMean,
        ("product", False, "cloud_mean"): ProductMean,
        ("product", True, "edge_mean"): Ordered,
        ("product", True, "cloud_mean"): Ordered,
    }


def test_server_optimizer_is_none_unless_asked_for() -> None:
    assert server_optimizer(Aggregate()) is None
    made = server_optimizer(Aggregate(server="adam"))
    assert made is not None
    assert (made.learning_rate, made.beta1, made.beta2, made.tau) == (3e-2, 0.9, 0.99, 1e-3)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=5), st.integers(5, 40))
def test_ranks_are_dealt_in_equal_shares_in_order(ranks: list[int], devices: int) -> None:
    adapter = Adapter(rank=9, ranks=(*ranks, 9))
    dealt = [device_rank(adapter, number, devices) for number in range(devices)]
    shares = [len(list(group)) for group in _runs(dealt, [*ranks, 9])]
    assert max(shares) - min(shares) <= 1
    assert sum(shares) == devices


def _runs(dealt: list[int], ranks: list[int]) -> list[list[int]]:
    """The devices of each entry of the list, known by its place."""
    count = Counter(number * len(ranks) // len(dealt) for number in range(len(dealt)))
    groups, start = [], 0
    for place, rank in enumerate(ranks):
        group = dealt[start : start + count[place]]
        assert set(group) <= {rank}
        groups.append(group)
        start += count[place]
    return groups


def test_equal_ranks_are_no_ranks() -> None:
    assert device_rank(Adapter(rank=8), 3, 10) == 0
    assert device_rank(Adapter(rank=8, ranks=(8, 8)), 3, 10) == 0

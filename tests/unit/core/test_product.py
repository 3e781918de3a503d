"""Means of products: exact while the rank allows it, the best approximation beyond."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.aggregate import WeightedMean
from elsa.core.lowrank import by_singular_value, cut, padded
from elsa.core.product import Ordered, ProductMean
from elsa.errors import AdapterError

A, B = "model.layer.0.query.lora_A.weight", "model.layer.0.query.lora_B.weight"
HEAD = "model.classifier.weight"
IN, OUT = 11, 9


def site(rank: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        A: torch.randn(rank, IN, generator=generator),
        B: torch.randn(OUT, rank, generator=generator),
        HEAD: torch.randn(2, generator=generator),
    }


def product(adapters: dict[str, Tensor]) -> Tensor:
    return adapters[B].double() @ adapters[A].double()


def mean(updates: list[tuple[dict[str, Tensor], float]], start: dict[str, Tensor]) -> dict:
    total = ProductMean()
    for number, (adapters, weight) in enumerate(updates):
        total.add(adapters, weight, str(number))
    return total.result(start)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.floats(0.1, 50)), min_size=1, max_size=3),
    st.integers(0, 99),
)
def test_product_of_the_result_is_the_mean_of_products_while_the_rank_allows(
    drawn: list[tuple[int, float]], seed: int
) -> None:
    rank = 9  # all ranks together at most
    updates = [(site(r, seed + n), w) for n, (r, w) in enumerate(drawn)]
    got = mean([(padded(each, rank), w) for each, w in updates], site(rank, 77))
    total = sum(weight for _, weight in updates)
    expected = sum(product(each) * weight / total for each, weight in updates)
    torch.testing.assert_close(product(got), expected, atol=1e-5, rtol=1e-5)


def test_beyond_the_rank_it_is_the_best_approximation_and_better_than_means_of_factors() -> None:
    updates = [(site(2, seed), 1.0 + seed) for seed in range(3)]
    expected = sum(product(each) * weight / 6 for each, weight in updates)
    got, plain = mean(updates, site(2, 9)), WeightedMean()
    for adapters, weight in updates:
        plain.add(adapters, weight)
    u, s, vt = torch.linalg.svd(expected)
    best = (u[:, :2] * s[:2]) @ vt[:2]
    torch.testing.assert_close(product(got), best, atol=1e-5, rtol=1e-5)
    apart = product(plain.result(site(2, 9)))
    assert (product(got) - expected).norm() < 0.8 * (apart - expected).norm()


def test_a_case_by_hand() -> None:
    """Two updates that add to x1 what x0 is, and to x0 what x1 is; the second counts three times.

    The mean is [[0, 3/4 * 2], [1/4 * 2, 0]]: of rank 1 the larger remains.
    """
    one = {A: torch.tensor([[1.0, 0.0]]), B: torch.tensor([[0.0], [2.0]])}
    two = {A: torch.tensor([[0.0, 1.0]]), B: torch.tensor([[2.0], [0.0]])}
    got = mean([(one, 1), (two, 3)], one)
    torch.testing.assert_close(product(got).float(), torch.tensor([[0.0, 1.5], [0.0, 0.0]]))
    assert got[A].norm() == 1


def test_heads_are_averaged_as_ever() -> None:
    updates = [(site(2, seed), 1.0 + seed) for seed in range(3)]
    plain = WeightedMean()
    for adapters, weight in updates:
        plain.add(adapters, weight)
    start = site(2, 9)
    assert torch.equal(mean(updates, start)[HEAD], plain.result(start)[HEAD])


def test_order_of_arrival_does_not_matter_beyond_rounding() -> None:
    updates = [(site(2, seed), 1.0 + seed) for seed in range(3)]
    one, two = mean(updates, site(2, 9)), mean(updates[::-1], site(2, 9))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value)


def test_where_nobody_has_learned_yet_every_direction_stays_open() -> None:
    """B is zero, as LoRA starts; of a small device even rows of A are."""
    start = {**site(4, 0), B: torch.zeros(OUT, 4)}
    small = padded(cut(start, 2), 4)
    got = mean([(small, 1), (small, 1)], start)
    assert not got[B].any()
    assert torch.linalg.matrix_rank(got[A]) == 4


def test_without_updates_all_is_as_it_was() -> None:
    start = site(2, 0)
    for mean in (ProductMean(), Ordered(WeightedMean())):
        assert all(value is start[name] for name, value in mean.result(start).items())


def test_ordered_is_the_inner_mean_in_other_factors() -> None:
    updates = [(site(3, seed), 1.0) for seed in range(2)]
    for kind in (WeightedMean, ProductMean):
        inner, outer = kind(), Ordered(kind())
        for adapters, weight in updates:
            inner.add(adapters, weight)
            outer.add(adapters, weight)
        expected = by_singular_value(inner.result(updates[0][0]))
        got = outer.result(updates[0][0])
        assert all(torch.equal(got[name], value) for name, value in expected.items())


@pytest.mark.parametrize("name", [A, B, HEAD])
def test_what_is_refused_changes_nothing(name: str) -> None:
    start, good = site(2, 9), site(2, 0)
    total = ProductMean()
    total.add(good, 1.0)
    for odd in (torch.full_like(good[name], torch.nan), torch.ones(1, 1, 1)):
        with pytest.raises(AdapterError, match=name):
            total.add({**good, name: odd}, 1.0)
    expected = mean([(good, 1.0)], start)
    assert all(torch.equal(value, expected[k]) for k, value in total.result(start).items())

"""Assignments are the cheapest there are, keep to the limits, and say whom they leave out."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.assign import NOWHERE, Rules, assign, distances, match, spread
from elsa.core.cluster import Clusters

FREE = Rules((9, 9), math.inf, 0.5, 0.0)


def uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def price(latency: Tensor, distance: Tensor, rules: Rules, edges: list[int] | None) -> Tensor:
    weight = rules.latency_weight
    cost = weight * latency / latency.max() + (1 - weight) * distance
    for device, edge in enumerate(edges or ()):
        cost[device, edge] -= rules.margin
    return cost


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Rules, list[int] | None]:
    devices, edges, seed = (
        draw(st.integers(1, 5)),
        draw(st.integers(1, 3)),
        draw(st.integers(0, 99)),
    )
    limit = draw(st.sampled_from([math.inf, 0.7, 0.3]))
    capacities = draw(st.lists(st.integers(0, 5), min_size=edges, max_size=edges))
    weight, margin = draw(st.sampled_from([0.0, 0.3, 1.0])), draw(st.sampled_from([0.0, 0.2]))
    now = st.lists(st.integers(0, edges - 1), min_size=devices, max_size=devices)
    rules = Rules(capacities, limit, weight, margin)
    return (
        uniform(seed, devices, edges),
        uniform(seed + 1, devices, edges),
        rules,
        draw(st.none() | now),
    )


@given(problem=problems())
@settings(max_examples=200, deadline=None)
def test_assignment_is_what_brute_force_finds(
    problem: tuple[Tensor, Tensor, Rules, list[int] | None],
) -> None:
    latency, distance, rules, now = problem
    devices, edges = latency.shape
    cost = price(latency, distance, rules, now)

    def judged(placed: tuple[int, ...]) -> tuple[int, float] | None:
        for edge in range(edges):
            if placed.count(edge) > rules.capacities[edge]:
                return None
        chosen = [(n, k) for n, k in enumerate(placed) if k != NOWHERE]
        if any(latency[n, k] > rules.latency_limit for n, k in chosen):
            return None
        return devices - len(chosen), sum(float(cost[n, k]) for n, k in chosen)

    every = map(judged, itertools.product(range(-1, edges), repeat=devices))
    best = min(it for it in every if it is not None)
    found = assign(latency, distance, rules, now)
    reached = judged(found.edges)
    assert reached is not None
    assert reached[0] == best[0]
    assert reached[1] == pytest.approx(best[1])
    assert set(found.left_out) == {n for n, k in enumerate(found.edges) if k == NOWHERE}


def test_a_move_must_gain_more_than_the_margin() -> None:
    distance = torch.tensor([[0.5, 0.3], [0.5, 0.1]])
    rules = Rules((9, 9), math.inf, 0.0, 0.3)
    assert assign(torch.ones(2, 2), distance, rules, [0, 0]).edges == (0, 1)
    assert assign(torch.ones(2, 2), distance, rules, [NOWHERE, 0]).edges == (1, 1)
    assert assign(torch.ones(2, 2), distance, rules).costs == pytest.approx((0.3, 0.1))


def test_who_is_left_out_is_told_why() -> None:
    latency = torch.tensor([[0.1, 0.2], [0.1, 0.2], [0.9, 0.8], [0.1, 0.9]])
    found = assign(latency, torch.zeros(4, 2), Rules((1, 1), 0.5, 0.5, 0.0))
    assert found.edges.count(NOWHERE) == 2
    assert found.left_out[2] == "no edge within the latency limit of 500 ms; " + (
        "the nearest is 800 ms away"
    )
    (other,) = set(found.left_out) - {2}
    assert found.left_out[other] in (
        "all 2 places of the edges are taken",
        "the edges within the latency limit (number 0) are full",
    )
    assert assign(torch.zeros(0, 2), torch.zeros(0, 2), FREE).edges == ()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_edge_has_a_cluster_and_every_cluster_an_edge(count: int) -> None:
    clusters = Clusters(torch.arange(12) % count, count)
    rules = Rules((9,) * 3, math.inf, 1.0, 0.0)
    home = match(clusters, uniform(count, 12, 3), rules)
    assert home.shape == (3, count)
    assert bool(home.any(0).all())
    assert bool(home.any(1).all())
    assert int(home.sum()) == max(3, count)


def test_clusters_go_where_their_members_are_near_and_large_ones_get_more_edges() -> None:
    clusters = Clusters(torch.tensor([0, 1, 1, 1, 1]), 2)
    latency = torch.tensor([[9.0, 9.0, 1.0]] + [[1.0, 1.0, 9.0]] * 4)
    home = match(clusters, latency, Rules((9,) * 3, math.inf, 0.5, 0.0))
    assert home.tolist() == [[False, True], [False, True], [True, False]]


def test_clusters_stay_where_their_members_are() -> None:
    clusters = Clusters(torch.tensor([0, 0, 1, 1]), 2)
    rules = Rules((9, 9), math.inf, 0.5, 0.05)
    for now in ([0, 0, 1, 1], [1, 1, 0, 0]):
        home = match(clusters, torch.ones(4, 2), rules, now)
        assert home[now[0], 0]
        assert home[now[2], 1]


def test_distance_is_to_the_others_of_a_cluster() -> None:
    apart = torch.tensor([[0.0, 1.0, 4.0], [1.0, 0.0, 4.0], [4.0, 4.0, 0.0]], dtype=torch.float64)
    clusters = Clusters(torch.tensor([0, 0, 1]), 2)
    found = distances(apart, clusters, torch.eye(2, dtype=torch.bool))
    scale = ((1 + 4**0.25) / 2) ** 4  # of the first two; of the third it is 4
    near, far = 1 - math.exp(-1 / scale), 1 - math.exp(-4 / (scale * 4) ** 0.5)
    expected = torch.tensor([[near, far], [near, far], [far, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    both = distances(apart, clusters, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(both, expected.amin(1, keepdim=True))


@given(seed=st.integers(0, 99), edges=st.integers(1, 4), count=st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_a_mixed_edge_has_its_share_of_each_cluster(seed: int, edges: int, count: int) -> None:
    devices = 24
    labels = torch.randint(count, (devices,), generator=torch.Generator().manual_seed(seed))
    clusters = Clusters(labels, count)
    capacity = -(-devices // edges)
    found = spread(clusters, uniform(seed, devices, edges), Rules((capacity,) * edges, 9, 0.5, 0.0))
    assert not found.left_out
    at = torch.tensor(found.edges)
    assert int(torch.bincount(at, minlength=edges).max()) <= capacity
    for number in range(count):
        size = int((labels == number).sum())
        shares = torch.bincount(at[labels == number], minlength=edges)
        assert int(shares.max()) <= math.ceil(size / edges) + count


def test_mixing_heeds_latency_and_says_whom_it_leaves_out() -> None:
    clusters = Clusters(torch.tensor([0, 0, 1, 1]), 2)
    latency = torch.tensor([[1.0, 9.0], [1.0, 9.0], [1.0, 9.0], [9.0, 9.0]])
    found = spread(clusters, latency, Rules((2, 2), 5.0, 0.5, 0.0))
    assert found.edges[3] == NOWHERE
    assert "no edge within the latency limit" in found.left_out[3]
    assert "(number 0) are full" in found.left_out[min(found.left_out)]
    assert sorted(found.edges) == [NOWHERE, NOWHERE, 0, 0]

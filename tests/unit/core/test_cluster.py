"""Clusters are found again, whatever the order, and odd inputs have an answer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from elsa.core.cluster import affinity, cluster, embedding


def groups(sizes: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Divergences of points in well separated groups, and who is in which."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    order = torch.randperm(len(labels), generator=draw)
    labels = labels[order]
    centres = 6 * torch.eye(len(sizes), dtype=torch.float64)
    around = torch.randn(len(labels), len(sizes), generator=draw, dtype=torch.float64)
    around *= (3 / around.norm(dim=1, keepdim=True)).clamp(max=1)  # none is between two groups
    points = centres[labels] + around
    return torch.cdist(points, points).square(), labels


SIZES = st.lists(st.integers(4, 12), min_size=2, max_size=4).map(tuple)


@given(sizes=SIZES, seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_groups_are_found_again(sizes: tuple[int, ...], seed: int) -> None:
    found, labels = groups(sizes, seed)
    result = cluster(found, len(sizes), seed)
    assert result.count == len(sizes)
    assert adjusted_rand_score(labels, result.labels) == 1.0


@given(count=st.integers(2, 5), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_eigengap_says_how_many_groups_there_are(count: int, seed: int) -> None:
    found, labels = groups((10,) * count, seed)
    assert adjusted_rand_score(labels, cluster(found, 0, seed).labels) == 1.0


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_order_of_devices_does_not_matter(seed: int) -> None:
    found, _ = groups((5, 7, 9), seed)
    order = torch.randperm(21, generator=torch.Generator().manual_seed(seed))
    plain = cluster(found, 3, 0).labels[order]
    turned = cluster(found[order][:, order], 3, 0).labels
    assert adjusted_rand_score(plain, turned) == 1.0


def test_the_same_seed_gives_the_same_clusters_numbered_by_first_member() -> None:
    found, _ = groups((6, 6, 6), 1)
    first = cluster(found, 3, 5)
    assert torch.equal(first.labels, cluster(found, 3, 5).labels)
    numbers = list(dict.fromkeys(first.labels.tolist()))
    assert numbers == [0, 1, 2]
    assert [len(first.members(number)) for number in numbers] == [6, 6, 6]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
@pytest.mark.parametrize("devices", [0, 1, 2, 3])
def test_few_devices_have_no_more_clusters_than_they_are(devices: int, count: int) -> None:
    found = torch.ones(devices, devices, dtype=torch.float64).fill_diagonal_(0)
    result = cluster(found, count, 0)
    assert len(result.labels) == devices
    assert result.count == len(set(result.labels.tolist())) <= max(devices, 1)
    if count:
        assert result.count == min(count, devices)


def test_devices_that_are_all_alike_are_dealt_or_one_cluster() -> None:
    found = torch.zeros(7, 7, dtype=torch.float64)
    assert torch.equal(affinity(found), torch.ones(7, 7, dtype=torch.float64))
    assert cluster(found, 3, 0).labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert cluster(found, 0, 0).count == 1


def test_one_that_is_infinitely_strange_for_a_float_is_alone() -> None:
    found, _ = groups((5, 5), 0)
    strange = torch.full((11, 11), 1e9, dtype=torch.float64).fill_diagonal_(0)
    strange[:10, :10] = found
    labels = cluster(strange, 3, 0).labels
    assert (labels == labels[10]).sum() == 1


@given(seed=st.integers(0, 1000), unit=st.floats(1e-6, 1e6))
@settings(max_examples=20, deadline=None)
def test_affinity_has_a_scale_for_each_device_and_none_for_all(seed: int, unit: float) -> None:
    found, _ = groups((5, 6), seed)
    alike = affinity(found)
    scale = [(sum(it**0.25 for it in row) / 10) ** 4 for row in found.tolist()]
    for one, other in ((0, 1), (3, 9)):
        expected = torch.e ** (-float(found[one, other]) / (scale[one] * scale[other]) ** 0.5)
        assert float(alike[one, other]) == pytest.approx(expected)
    torch.testing.assert_close(affinity(unit * found), alike)
    assert torch.equal(alike, alike.T)
    assert torch.equal(alike.diagonal(), torch.ones(11, dtype=torch.float64))


@pytest.mark.parametrize("count", [0, 3])
def test_a_few_devices_far_from_all_do_not_hide_the_groups(count: int) -> None:
    found, labels = groups((9, 10, 11), 2)
    far = torch.ones(30, dtype=torch.float64)
    far[:4] = 8.0  # all that these four do differs more from what anybody does
    strange = found * far[:, None] * far
    assert adjusted_rand_score(labels, cluster(strange, count, 0).labels) >= 0.9


def test_where_most_are_wholly_alike_the_others_are_like_nobody() -> None:
    found = torch.zeros(6, 6, dtype=torch.float64)
    found[5, :5] = found[:5, 5] = 2.0
    expected = torch.ones(6, 6, dtype=torch.float64)
    expected[5, :5] = expected[:5, 5] = torch.e**-25  # the scales are 2 / 5**4 and 2
    torch.testing.assert_close(affinity(found), expected)


def test_who_is_wholly_like_all_others_is_like_them_alone() -> None:
    found = torch.zeros(4, 4, dtype=torch.float64)
    found[2, 3] = found[3, 2] = 5.0
    alike = affinity(found)
    assert torch.equal(alike[:2], torch.ones(2, 4, dtype=torch.float64))
    assert float(alike[2, 3]) == pytest.approx(torch.e**-81)  # both scales are 5 / 3**4


@pytest.mark.parametrize("devices", [0, 1, 2, 9])
def test_the_plane_keeps_distances_where_it_can(devices: int) -> None:
    points = torch.randn(devices, 2, generator=torch.Generator().manual_seed(0)).double()
    found = embedding(torch.cdist(points, points).square())
    assert found.shape == (devices, 2)
    torch.testing.assert_close(
        torch.cdist(found, found), torch.cdist(points, points), atol=1e-6, rtol=0
    )

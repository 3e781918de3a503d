"""Factors of LoRA: the same products in other factors and in other ranks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.lowrank import by_singular_value, cut, factorised, padded, rank_of, sites

A, B = "model.layer.0.query.lora_A.weight", "model.layer.0.query.lora_B.weight"
HEAD = "model.classifier.weight"
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(1, 9))


def site(rank: int, inner: int = 7, outer: int = 5, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        A: torch.randn(rank, inner, generator=generator),
        B: torch.randn(outer, rank, generator=generator),
        HEAD: torch.ones(3, 2),
    }


def product(adapters: dict[str, Tensor]) -> Tensor:
    return adapters[B].double() @ adapters[A].double()


def truncated(whole: Tensor, rank: int) -> Tensor:
    """The best approximation of a rank, from the SVD of the whole product."""
    u, s, vt = torch.linalg.svd(whole.double(), full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def test_a_site_is_a_pair_of_factors() -> None:
    adapters = site(2)
    assert list(sites(adapters)) == [(A, B)]
    assert list(sites([A, HEAD])) == list(sites([B])) == []
    assert rank_of(adapters) == 2
    assert rank_of({HEAD: adapters[HEAD]}) == 0


def test_padding_keeps_products_and_cutting_undoes_it() -> None:
    small = site(2)
    large = padded(small, 5)
    assert (large[A].shape, large[B].shape) == ((5, 7), (5, 5))
    assert torch.equal(product(large), product(small))
    back = cut(large, 2)
    assert all(torch.equal(back[name], value) for name, value in small.items())


def test_what_has_the_rank_already_is_not_touched() -> None:
    adapters = site(4)
    for changed in (padded(adapters, 4), padded(adapters, 2), cut(adapters, 4), cut(adapters, 9)):
        assert all(changed[name] is value for name, value in adapters.items())


@settings(deadline=None)
@given(SIZES)
def test_ordered_factors_have_the_product_and_cut_to_its_best_approximation(
    sizes: tuple[int, int, int, int],
) -> None:
    rank, inner, outer, kept = sizes
    adapters = site(rank, inner, outer)
    ordered = by_singular_value(adapters)
    assert {k: v.shape for k, v in ordered.items()} == {k: v.shape for k, v in adapters.items()}
    torch.testing.assert_close(product(ordered), product(adapters), atol=1e-5, rtol=1e-4)
    assert ordered[HEAD] is adapters[HEAD]
    got, best = product(cut(ordered, kept)), truncated(product(adapters), kept)
    torch.testing.assert_close(got, best, atol=1e-5, rtol=1e-4)


def test_ordered_twice_is_ordered_once_and_sides_stay() -> None:
    adapters = site(3)
    once = by_singular_value(adapters)
    twice = by_singular_value(once)
    torch.testing.assert_close(twice[A], once[A])
    torch.testing.assert_close(twice[B], once[B])
    assert ((once[A] * adapters[A]).sum(1) >= 0).all()
    torch.testing.assert_close(once[A].norm(), adapters[A].norm())


def test_ordering_leaves_directions_to_learn_in_where_b_is_zero() -> None:
    """As LoRA starts: A with all of its rank, B zero."""
    ordered = by_singular_value({**site(3), B: torch.zeros(5, 3)})
    assert not ordered[B].any()
    lengths = ordered[A].norm(dim=1)
    torch.testing.assert_close(lengths, lengths[:1].expand(3))
    assert lengths.min() > 0.1


@settings(deadline=None)
@given(SIZES)
def test_factors_are_the_best_of_their_rank_and_say_what_was_lost(
    sizes: tuple[int, int, int, int],
) -> None:
    many, inner, outer, rank = sizes
    many = max(many, rank)
    given_ = site(many, inner, outer)
    like = site(rank, inner, outer, seed=1)[A]
    made = factorised(given_[A], given_[B], like, 2.0)
    whole = product(given_)
    best = truncated(whole, rank)
    assert (made.a.shape, made.b.shape) == ((rank, inner), (outer, rank))
    torch.testing.assert_close(made.b @ made.a, best, atol=1e-9, rtol=1e-9)
    share = float((whole - best).square().sum() / whole.square().sum())
    assert made.lost == pytest.approx(share, abs=1e-12)
    if rank <= inner:
        torch.testing.assert_close(made.a @ made.a.T, 4 * torch.eye(rank).double())


def test_of_all_such_factors_the_nearest_are_taken() -> None:
    """A with orthogonal rows of one length, and its B: back they come."""
    rows = 3 * torch.linalg.qr(torch.randn(7, 3, dtype=torch.float64)).Q.T
    b = torch.randn(5, 3, dtype=torch.float64)
    made = factorised(rows, b, rows, 3.0)
    torch.testing.assert_close(made.a, rows)
    torch.testing.assert_close(made.b, b)
    assert made.lost == pytest.approx(0, abs=1e-12)

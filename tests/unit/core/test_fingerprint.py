"""Laws of the divergence, and what becomes of a fingerprint that is no good."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from elsa.core.fingerprint import (
    FLOOR,
    Fingerprint,
    divergences,
    fingerprint,
    packed,
    shared_basis,
    turns,
    unpacked,
)
from elsa.errors import BehaviourError, ConfigError

SEEDS = st.integers(0, 2**31)


def states(seed: int, probes: int = 40, hidden: int = 12, spread: float = 1.0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(hidden, hidden, generator=draw)
    shift = torch.randn(hidden, generator=draw)
    return spread * torch.randn(probes, hidden, generator=draw) @ mix + shift


def some(seed: int, count: int = 4, dimensions: int = 5) -> list[Fingerprint]:
    return [
        fingerprint(states(seed + number, hidden=dimensions).double()) for number in range(count)
    ]


def normal(print_: Fingerprint) -> MultivariateNormal:
    return MultivariateNormal(print_.mean, scale_tril=print_.factor)


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_divergence_is_symmetric_zero_on_itself_and_that_of_the_gaussians(seed: int) -> None:
    prints = some(seed)
    found = divergences(prints)
    assert torch.equal(found, found.T)
    assert torch.equal(found.diagonal(), torch.zeros(4, dtype=torch.float64))
    for n, m in itertools.combinations(range(4), 2):
        one, other = normal(prints[n]), normal(prints[m])
        both = kl_divergence(one, other) + kl_divergence(other, one)
        torch.testing.assert_close(found[n, m], both / 2)


def test_closed_form_agrees_with_monte_carlo() -> None:
    one, other = (normal(it) for it in some(3, 2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        here, there = one.sample(torch.Size([200_000])), other.sample(torch.Size([200_000]))
    ways = (
        (one.log_prob(here) - other.log_prob(here)).mean(),
        (other.log_prob(there) - one.log_prob(there)).mean(),
    )
    torch.testing.assert_close(divergences(some(3, 2))[0, 1], sum(ways) / 2, rtol=0.02, atol=0)


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_a_rotation_of_all_changes_no_divergence(seed: int) -> None:
    given_ = [states(seed + number, hidden=5).double() for number in range(3)]
    turn = torch.linalg.qr(states(seed, 5, 5).double())[0]
    before = divergences([fingerprint(it) for it in given_])
    after = divergences([fingerprint(it @ turn + 3.0) for it in given_])
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-6)


def shifted(*means: list[float]) -> list[Fingerprint]:
    """Gaussians as wide as the base model's fingerprint, with these means."""
    wide = (1 + FLOOR) ** 0.5 * torch.eye(2, dtype=torch.float64)
    return [Fingerprint(torch.tensor(it, dtype=torch.float64), wide) for it in means]


def test_turns_by_hand() -> None:
    found = turns(shifted([1.0, 0.0], [5.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.1, 0.1]))
    half = 1 - 0.5**0.5
    expected = torch.tensor(
        [
            [0.0, 0.0, 1.0, 2.0, half],
            [0.0, 0.0, 1.0, 2.0, half],  # five times as far the same way is no other way
            [1.0, 1.0, 0.0, 1.0, half],
            [2.0, 2.0, 1.0, 0.0, 2 - half],
            [half, half, half, 2 - half, 0.0],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_turns_are_symmetric_zero_on_themselves_and_bounded(seed: int) -> None:
    found = turns(some(seed))
    assert torch.equal(found, found.T)
    assert torch.equal(found.diagonal(), torch.zeros(4, dtype=torch.float64))
    assert 0 <= float(found.min()) <= float(found.max()) <= 2


def test_who_did_not_move_is_at_a_right_angle_to_who_did() -> None:
    found = turns(shifted([0.0, 0.0], [0.0, 0.0], [3.0, 1.0]))
    assert found[0].tolist() == [0.0, 0.0, 1.0]
    assert found[2].tolist() == [1.0, 1.0, 0.0]


def test_the_base_model_is_the_standard_normal_on_its_own_axes() -> None:
    base = states(1, probes=60)
    basis = shared_basis(base, 5)
    seen = basis.project(base)
    torch.testing.assert_close(seen.mean(0), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(seen.T.cov(), torch.eye(5, dtype=torch.float64))
    whole = torch.linalg.svd(base.double() - base.double().mean(0))[1][:5].square().sum()
    along = basis.axes / torch.linalg.vector_norm(basis.axes, dim=0)
    kept = ((base.double() - basis.mean) @ along).square().sum()
    torch.testing.assert_close(kept, whole)  # the axes of most variance, none other


@given(seed=SEEDS, dimensions=st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_packing_keeps_the_divergences(seed: int, dimensions: int) -> None:
    prints = [fingerprint(states(seed + n, hidden=dimensions)) for n in range(3)]
    data = [packed(it) for it in prints]
    assert {len(it) for it in data} == {2 * (dimensions + dimensions * (dimensions + 1) // 2)}
    again = [unpacked(it, dimensions) for it in data]
    assert [packed(it) for it in again] == data
    torch.testing.assert_close(divergences(again), divergences(prints), rtol=0.05, atol=0.02)


def test_a_model_that_answers_all_alike_is_far_away_but_finite() -> None:
    flat = torch.full((40, 5), 2.0)
    print_ = fingerprint(flat)
    assert torch.equal(print_.factor, FLOOR**0.5 * torch.eye(5, dtype=torch.float64))
    found = divergences([unpacked(packed(print_), 5), *some(0)])
    assert bool(torch.isfinite(found).all())
    assert float(found[0, 1:].min()) > float(found[1:, 1:].max())


def test_too_few_probes_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"15 probes .* 5 axes; allowed: at most 4 axes"):
        shared_basis(states(0, probes=15), 5)
    with pytest.raises(ConfigError, match="more than 15 probes, not 15"):
        fingerprint(states(0, probes=15, hidden=5))
    with pytest.raises(ConfigError, match=r"at most 12 axes .* hidden size 12"):
        shared_basis(states(0, probes=60), 13)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_device_that_diverged_is_told_from_one_that_did_not(bad: float) -> None:
    seen = states(0)
    seen[3, 1] = bad
    with pytest.raises(BehaviourError, match="NaN or infinity"):
        fingerprint(seen)
    with pytest.raises(BehaviourError, match="NaN or infinity"):
        shared_basis(seen, 3)


def test_base_states_without_enough_variety_are_refused() -> None:
    with pytest.raises(BehaviourError, match="fewer than 5 axes"):
        shared_basis(states(0, hidden=12)[:, :1].expand(-1, 12) * torch.arange(12.0), 5)


def test_enormous_states_still_fit_into_half_precision() -> None:
    print_ = fingerprint(states(0, hidden=5) * 1e12)
    again = unpacked(packed(print_), 5)
    assert bool(torch.isfinite(divergences([again, *some(0)])).all())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes; 40 are due"),
        (np.full(20, np.nan, "<f2").tobytes(), "NaN"),
        (np.zeros(20, "<f2").tobytes(), "no spread"),
    ],
)
def test_bytes_that_are_no_fingerprint_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(BehaviourError, match=message):
        unpacked(data, 5)


def test_nobody_has_no_divergences() -> None:
    assert divergences([]).shape == (0, 0)
    assert turns([]).shape == (0, 0)

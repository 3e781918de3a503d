import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elsa.core.noise import Noise, epsilon_of
from elsa.errors import ConfigError

STATES = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
ZEROS = torch.zeros(50, 8)


def test_clipping_keeps_what_is_near_and_brings_the_rest_to_the_norm_in_its_direction() -> None:
    held = Noise(2.0, 0.1).rows(torch.tensor([[1.5, 0.0], [3.0, 4.0]]), torch.zeros(2, 2))
    torch.testing.assert_close(held, torch.tensor([[1.5, 0.0], [1.2, 1.6]]))


def test_two_clipped_states_are_never_further_apart_than_the_bound_that_epsilon_assumes() -> None:
    held = Noise(0.7, 0.1).rows(10 * STATES, ZEROS)
    assert torch.cdist(held, held).max() <= 2 * 0.7 + 1e-5


def test_noise_is_what_was_drawn_times_ratio_and_norm() -> None:
    torch.testing.assert_close(Noise(2.0, 0.25).rows(ZEROS, STATES), STATES * 0.5)


def test_gradients_pass_noise_unchanged_where_nothing_was_clipped() -> None:
    states = STATES.clone().requires_grad_()
    Noise(1e6, 1e-6).rows(states, STATES).sum().backward()
    assert states.grad is not None
    torch.testing.assert_close(states.grad, torch.ones(50, 8))


SIZES = st.lists(st.integers(1, 5), min_size=2, max_size=6)


@given(SIZES, st.floats(0.01, 50), st.integers(0, 5))
def test_the_rows_of_a_text_are_clipped_together_and_no_other_text_matters(
    sizes: list[int], norm: float, seed: int
) -> None:
    values = torch.randn(sum(sizes), 8, generator=torch.Generator().manual_seed(seed))
    nothing = torch.zeros_like(values)
    shown = Noise(norm, 1.0).texts(values, sizes, nothing)
    other = values.clone()
    other[: sizes[0]] *= -30
    changed = Noise(norm, 1.0).texts(other, sizes, nothing)
    assert torch.equal(shown[sizes[0] :], changed[sizes[0] :])
    for one, two in zip(values.split(sizes), shown.split(sizes), strict=True):
        factor = min(1.0, norm / float(one.norm()))
        torch.testing.assert_close(two, one * factor, rtol=1e-4, atol=1e-6)
    assert (shown[: sizes[0]] - changed[: sizes[0]]).norm() <= 2 * norm * 1.001


def test_noise_on_gradients_has_the_spread_that_epsilon_assumes() -> None:
    drawn = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    shown = Noise(0.5, 3.0).texts(STATES, [20, 30], drawn)
    plain = Noise(0.5, 3.0).texts(STATES, [20, 30], ZEROS)
    torch.testing.assert_close(shown - plain, 1.5 * drawn)
    assert Noise(0.5, 3.0).texts(STATES.bfloat16(), [50], drawn).dtype == torch.bfloat16


@given(st.floats(0.01, 50), st.integers(0, 5))
def test_an_update_is_clipped_over_all_its_tensors_and_starts_where_it_began(
    norm: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    start = {name: torch.randn(4, 3, generator=generator) for name in "ab"}
    ends = [{name: torch.randn(4, 3, generator=generator) for name in "ab"} for _ in range(2)]
    nothing = {name: torch.zeros(4, 3) for name in "ab"}

    def flat(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([(values[name] - start[name]).flatten() for name in "ab"])

    shown = [Noise(norm, 2.0).whole(start, end, nothing) for end in ends]
    assert (flat(shown[0]) - flat(shown[1])).norm() <= 2 * norm * 1.001
    moved = flat(ends[0])
    expected = moved * min(1.0, norm / float(moved.norm()))
    torch.testing.assert_close(flat(shown[0]), expected, rtol=1e-3, atol=1e-5)


def test_noise_on_an_update_is_that_of_its_norm_on_every_value() -> None:
    start = {"a": torch.zeros(4), "b": torch.zeros(2, 2)}
    drawn = {"a": torch.randn(4), "b": torch.randn(2, 2)}
    shown = Noise(2.0, 0.25).whole(start, start, drawn)
    for name in start:
        torch.testing.assert_close(shown[name], 0.5 * drawn[name])


ORACLE = [
    (1.0, 1, 1e-5, 9.99726),
    (4.0, 1, 1e-5, 1.99309),
    (2.0, 20, 1e-5, 28.37347),
    (20.0, 40, 1e-6, 2.92160),
    (0.5, 3, 1e-5, 52.77063),
]
"""Ratio, releases, delta, and epsilon from privacy loss distributions, dp-accounting 0.6.0."""


@pytest.mark.parametrize(("ratio", "releases", "delta", "epsilon"), ORACLE)
def test_epsilon_is_that_of_an_accountant_of_another_kind(
    ratio: float, releases: int, delta: float, epsilon: float
) -> None:
    assert epsilon_of(ratio, delta, releases) == pytest.approx(epsilon, rel=1e-5)


@given(st.floats(0.2, 20), st.floats(1e-8, 0.1))
def test_epsilon_meets_the_exact_condition_of_the_gaussian_mechanism(
    ratio: float, delta: float
) -> None:
    epsilon, mu = epsilon_of(ratio, delta), 2 / ratio

    def phi(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    def met(at: float) -> float:
        return phi(mu / 2 - at / mu) - math.exp(at) * phi(-mu / 2 - at / mu)

    assert met(epsilon) <= delta * 1.0001 + 1e-12
    if epsilon > 1e-6:
        assert met(epsilon * 0.99) > delta * 0.999 - 1e-12


def test_a_known_epsilon() -> None:
    """The Gaussian mechanism with noise of twice the sensitivity at delta 1e-5 (mu = 0.5)."""
    assert epsilon_of(4.0, 1e-5) == pytest.approx(1.988, abs=0.02)


def test_more_releases_cost_as_much_as_less_noise() -> None:
    assert epsilon_of(2.0, 1e-5, releases=4) == pytest.approx(epsilon_of(1.0, 1e-5))
    assert epsilon_of(2.0, 1e-5) < epsilon_of(1.0, 1e-5)


@pytest.mark.parametrize("values", [(0, 1e-5, 1), (1, 0, 1), (1, 1, 1), (1, 1e-5, 0)])
def test_numbers_out_of_range_are_refused(values: tuple[float, float, int]) -> None:
    with pytest.raises(ConfigError, match="allowed"):
        epsilon_of(*values)

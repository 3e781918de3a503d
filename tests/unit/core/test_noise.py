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
    held = Noise(2.0, 0.1).apply(torch.tensor([[1.5, 0.0], [3.0, 4.0]]), torch.zeros(2, 2))
    torch.testing.assert_close(held, torch.tensor([[1.5, 0.0], [1.2, 1.6]]))


def test_two_clipped_states_are_never_further_apart_than_the_bound_that_epsilon_assumes() -> None:
    held = Noise(0.7, 0.1).apply(10 * STATES, ZEROS)
    assert torch.cdist(held, held).max() <= 2 * 0.7 + 1e-5


def test_noise_is_what_was_drawn_times_ratio_and_norm() -> None:
    torch.testing.assert_close(Noise(2.0, 0.25).apply(ZEROS, STATES), STATES * 0.5)


def test_gradients_pass_noise_unchanged_where_nothing_was_clipped() -> None:
    states = STATES.clone().requires_grad_()
    Noise(1e6, 1e-6).apply(states, STATES).sum().backward()
    assert states.grad is not None
    torch.testing.assert_close(states.grad, torch.ones(50, 8))


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

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elsa.core.noise import clipped, epsilon_of, noised
from elsa.errors import ConfigError


def test_clipping_keeps_what_is_near_and_brings_the_rest_to_the_norm_in_its_direction() -> None:
    centre = torch.tensor([1.0, 0.0])
    states = torch.tensor([[1.5, 0.0], [1.0, 8.0]])
    torch.testing.assert_close(clipped(states, centre, 2.0), torch.tensor([[1.5, 0.0], [1.0, 2.0]]))


def test_two_clipped_states_are_never_further_apart_than_the_bound_that_epsilon_assumes() -> None:
    generator = torch.Generator().manual_seed(0)
    states = 10 * torch.randn(50, 8, generator=generator)
    held = clipped(states, torch.ones(8), 0.7)
    assert torch.cdist(held, held).max() <= 2 * 0.7 + 1e-5


def test_noise_has_the_deviation_asked_for_and_follows_its_generator() -> None:
    states = torch.zeros(200, 100)
    one = noised(states, 0.3, torch.Generator().manual_seed(1))
    assert float(one.std()) == pytest.approx(0.3, rel=0.02)
    assert torch.equal(one, noised(states, 0.3, torch.Generator().manual_seed(1)))
    assert not torch.equal(one, noised(states, 0.3, torch.Generator().manual_seed(2)))


def test_gradients_pass_noise_unchanged() -> None:
    states = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    noised(states, 1.0, torch.Generator().manual_seed(0)).sum().backward()
    assert states.grad is not None
    assert torch.equal(states.grad, torch.ones(3, 4))


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

"""FedAdam: two steps by hand, and what its constants do."""

import pytest
import torch

from elsa.core.serveropt import FedAdam


def test_two_steps_by_hand() -> None:
    """lr 1, b1 = b2 = 1/2, tau = 1; a mean 2 above theta, then one 3 below it.

    d = 2: m = 1, v = (1 + 4) / 2 = 2.5; d = -3: m = -1, v = (2.5 + 9) / 2 = 5.75.
    """
    adam = FedAdam(learning_rate=1.0, beta1=0.5, beta2=0.5, tau=1.0)
    start = {"a": torch.tensor([10.0], dtype=torch.float64)}
    one, state = adam.step(start, {"a": start["a"] + 2}, {})
    assert (state["m/a"].item(), state["v/a"].item()) == (1, 2.5)
    assert one["a"].item() == pytest.approx(10 + 1 / (2.5**0.5 + 1))
    two, state = adam.step(one, {"a": one["a"] - 3}, state)
    assert (state["m/a"].item(), state["v/a"].item()) == (-1, 5.75)
    assert two["a"].item() == pytest.approx(one["a"].item() - 1 / (5.75**0.5 + 1))


def test_a_large_tau_makes_it_averaging_with_momentum() -> None:
    """With lr = (1 + sqrt(b2)) tau the step is m, and without momentum the mean itself."""
    tau, generator = 1e6, torch.Generator().manual_seed(0)
    start, mean = ({"a": torch.randn(5, generator=generator)} for _ in range(2))
    for beta1 in (0.0, 0.75):
        got, _ = FedAdam(1.5 * tau, beta1, 0.25, tau).step(start, mean, {})
        expected = start["a"] + (1 - beta1) * (mean["a"] - start["a"])
        torch.testing.assert_close(got["a"], expected, rtol=1e-4, atol=1e-5)


def test_numbers_that_move_much_and_little_move_alike() -> None:
    start, mean = {"a": torch.zeros(2)}, {"a": torch.tensor([10.0, -0.5])}
    got, _ = FedAdam(0.01, 0.9, 0.99, 1e-6).step(start, mean, {})
    torch.testing.assert_close(got["a"], torch.tensor([0.01, -0.01]), rtol=1e-3, atol=0)


def test_what_has_no_mean_stays_and_so_does_its_state() -> None:
    adam = FedAdam(0.1, 0.9, 0.99, 1e-3)
    start = {"a": torch.zeros(2), "b": torch.ones(2)}
    one, state = adam.step(start, {name: value + 1 for name, value in start.items()}, {})
    two, after = adam.step(one, {"a": one["a"] + 1}, state)
    assert two["b"] is one["b"]
    assert (after["m/b"] is state["m/b"], after["v/b"] is state["v/b"]) == (True, True)
    assert not torch.equal(two["a"], one["a"])
    assert list(two) == ["a", "b"]


def test_what_goes_in_stays_as_it_was_and_dtypes_come_back() -> None:
    adam = FedAdam(0.1, 0.9, 0.99, 1e-3)
    start, mean = {"a": torch.ones(3).bfloat16()}, {"a": torch.zeros(3)}
    one, state = adam.step(start, mean, {})
    before = {name: value.clone() for name, value in state.items()}
    adam.step(one, mean, state)
    assert one["a"].dtype == torch.bfloat16
    assert {value.dtype for value in state.values()} == {torch.float64}
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert torch.equal(start["a"], torch.ones(3).bfloat16())

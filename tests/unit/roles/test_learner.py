"""AdamW over adapters: what is kept, what is copied, and what goes on as if never stopped."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from elsa.roles.learner import Learner, OptimizerSettings

SETTINGS = OptimizerSettings(learning_rate=0.1, weight_decay=0.05, keep_moments=True)


def tensors(seed: int, **shapes: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = shapes or {"a": 3, "b": 5}
    return {name: torch.randn(size, 2, generator=generator) for name, size in shapes.items()}


def train(learner: Learner, steps: range) -> Learner:
    for step in steps:
        learner.gather(tensors(100 + step))
        learner.step()
    return learner


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], value) for name, value in other.items())


def test_going_on_from_moments_is_bit_identical_to_never_stopping() -> None:
    whole = train(Learner(tensors(0), SETTINGS), range(6))
    first = train(Learner(tensors(0), SETTINGS), range(3))
    second = train(Learner(first.tensors(), SETTINGS, first.moments()), range(3, 6))
    assert equal(second.tensors(), whole.tensors())
    assert equal(second.moments(), whole.moments())
    again = train(Learner(first.tensors(), SETTINGS), range(3, 6))
    assert not equal(again.tensors(), whole.tensors())


def test_moments_survive_a_checkpoint_of_tensors() -> None:
    first = train(Learner(tensors(0), SETTINGS), range(2))
    kept = {name: value.clone() for name, value in first.moments().items()}
    assert {name.split("/")[0] for name in kept} == {"exp_avg", "exp_avg_sq", "step"}
    assert all(type(value) is Tensor for value in kept.values())
    one = train(Learner(first.tensors(), SETTINGS, kept), range(2, 4))
    other = train(Learner(first.tensors(), SETTINGS, first.moments()), range(2, 4))
    assert equal(one.tensors(), other.tensors())


def test_a_learner_copies_what_it_is_given() -> None:
    given, moments = tensors(0), train(Learner(tensors(0), SETTINGS), range(2)).moments()
    before = [{name: value.clone() for name, value in held.items()} for held in (given, moments)]
    train(Learner(given, SETTINGS, moments), range(2))
    assert equal(given, before[0])
    assert equal(moments, before[1])


def test_names_without_moments_start_from_zero() -> None:
    moments = train(Learner(tensors(0), SETTINGS), range(2)).moments()
    some = {name: value for name, value in moments.items() if name.endswith("/a")}
    mixed = train(Learner(tensors(0), SETTINGS, some), range(2))
    kept = train(Learner(tensors(0), SETTINGS, moments), range(2))
    fresh = train(Learner(tensors(0), SETTINGS), range(2))
    assert torch.equal(mixed.tensors()["a"], kept.tensors()["a"])
    assert torch.equal(mixed.tensors()["b"], fresh.tensors()["b"])


def test_first_step_by_hand() -> None:
    start, gradient = tensors(0), tensors(1)
    learner = Learner(start, SETTINGS)
    learner.gather(gradient)
    learner.step()
    for name, value in start.items():
        g = gradient[name]
        expected = value * (1 - 0.1 * 0.05) - 0.1 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(learner.tensors()[name], expected)


def test_gather_adds_with_weights() -> None:
    learner = Learner(tensors(0), SETTINGS)
    learner.gather(tensors(1), 2.0)
    learner.gather({**tensors(2), "b": None}, 3.0)
    one, other = tensors(1), tensors(2)
    torch.testing.assert_close(learner.parameters["a"].grad, 2 * one["a"] + 3 * other["a"])
    torch.testing.assert_close(learner.parameters["b"].grad, 2 * one["b"])


def test_gather_leaves_the_gradients_it_is_given() -> None:
    given = tensors(1)
    learner = Learner(tensors(0), SETTINGS)
    learner.gather(given, 1.0)
    learner.gather(given, 2.0)
    assert equal(given, tensors(1))


def test_a_step_clears_the_gradients() -> None:
    learner = train(Learner(tensors(0), SETTINGS), range(1))
    once = {name: value.clone() for name, value in learner.tensors().items()}
    learner.step()
    assert equal(learner.tensors(), once)


def test_what_got_no_gradient_stays_in_spite_of_weight_decay() -> None:
    learner = Learner(tensors(0), SETTINGS)
    learner.gather({"a": tensors(1)["a"], "b": None})
    learner.step()
    assert torch.equal(learner.tensors()["b"], tensors(0)["b"])
    assert {name.split("/")[1] for name in learner.moments()} == {"a"}


def test_tensors_of_some_names() -> None:
    learner = Learner(tensors(0), SETTINGS)
    assert list(learner.tensors(["b"])) == ["b"]
    assert not learner.tensors()["a"].requires_grad


@pytest.mark.parametrize("change", [{"learning_rate": 0.2}, {"weight_decay": 0.5}])
def test_every_setting_counts(change: dict[str, float]) -> None:
    one = train(Learner(tensors(0), SETTINGS), range(2))
    other = train(Learner(tensors(0), replace(SETTINGS, **change)), range(2))
    assert not equal(one.tensors(), other.tensors())

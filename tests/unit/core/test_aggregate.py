"""Averages of adapters: exact where they can be, and a refusal changes nothing."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.aggregate import WeightedMean
from elsa.errors import AdapterError

WEIGHTS = st.floats(1e-3, 1e6)
SINGLE = st.floats(-(2.0**100), 2.0**100, width=32)
UPDATES = st.lists(st.tuples(st.lists(SINGLE, min_size=4, max_size=4), WEIGHTS), min_size=1)


def mean(updates: list[tuple[dict[str, Tensor], float]]) -> dict[str, Tensor]:
    total = WeightedMean()
    for adapters, weight in updates:
        total.add(adapters, weight)
    return total.result(
        {name: value for adapters, _ in updates for name, value in adapters.items()}
    )


def tensors(updates: list[tuple[list[float], float]]) -> list[tuple[dict[str, Tensor], float]]:
    return [({"a": torch.tensor(values)}, weight) for values, weight in updates]


def close(got: Tensor, expected: Tensor, updates: list[tuple[dict[str, Tensor], float]]) -> bool:
    """Equal within two roundings to float32 of the largest value that went in."""
    largest = max(float(adapters["a"].abs().max()) for adapters, _ in updates)
    return bool(((got.double() - expected.double()).abs() <= 2**-22 * largest).all())


@settings(deadline=None)
@given(
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.lists(SINGLE, min_size=1, max_size=6),
    st.lists(WEIGHTS, min_size=1, max_size=8),
)
def test_mean_of_equals_is_exactly_them(
    dtype: torch.dtype, values: list[float], weights: list[float]
) -> None:
    tensor = torch.tensor(values).clamp(-6e4, 6e4).to(dtype)
    assert torch.equal(mean([({"a": tensor}, weight) for weight in weights])["a"], tensor)


def test_weighted_by_hand() -> None:
    first = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
    second = {"a": torch.tensor([5.0, -2.0]), "b": torch.tensor([[7.0]])}
    got = mean([(first, 3), (second, 1)])
    assert got["a"].tolist() == [2.0, 1.0]
    assert got["b"].tolist() == [[4.0]]


def test_each_key_is_averaged_over_those_who_held_it() -> None:
    got = mean(
        [
            ({"a": torch.tensor(1.0), "b": torch.tensor(10.0)}, 1),
            ({"a": torch.tensor(4.0)}, 2),
            ({"b": torch.tensor(40.0), "c": torch.tensor(7.0)}, 4),
        ]
    )
    assert {name: float(value) for name, value in got.items()} == {"a": 3.0, "b": 34.0, "c": 7.0}


@settings(deadline=None)
@given(UPDATES, st.randoms(use_true_random=False))
def test_order_does_not_matter_beyond_rounding(
    drawn: list[tuple[list[float], float]], random: object
) -> None:
    updates = tensors(drawn)
    shuffled = list(updates)
    random.shuffle(shuffled)
    assert close(mean(shuffled)["a"], mean(updates)["a"], updates)


@settings(deadline=None)
@given(UPDATES, UPDATES)
def test_mean_of_means_is_the_flat_mean_within_rounding(
    one: list[tuple[list[float], float]], other: list[tuple[list[float], float]]
) -> None:
    groups = [tensors(one), tensors(other)]
    means = [(mean(group), sum(weight for _, weight in group)) for group in groups]
    flat = [*groups[0], *groups[1]]
    assert close(mean(means)["a"], mean(flat)["a"], flat)


@settings(deadline=None)
@given(UPDATES)
def test_mean_lies_between_the_extremes(drawn: list[tuple[list[float], float]]) -> None:
    stacked = torch.tensor([values for values, _ in drawn])
    got = mean(tensors(drawn))["a"]
    slack = 2**-22 * stacked.abs().max()
    assert (got >= stacked.min(0).values - slack).all()
    assert (got <= stacked.max(0).values + slack).all()


GOOD = torch.tensor([1.0, 2.0])


@pytest.mark.parametrize(
    ("adapters", "weight"),
    [
        ({"a": GOOD, "b": torch.tensor([math.nan, 1.0])}, 1.0),
        ({"a": GOOD, "b": torch.tensor([math.inf, 1.0])}, 1.0),
        ({"a": GOOD, "b": torch.tensor([1.0])}, 1.0),
        ({"a": GOOD, "b": torch.tensor([[1.0, 2.0]])}, 1.0),
        ({"a": GOOD, "b": GOOD}, 0.0),
        ({"a": GOOD, "b": GOOD}, -1.0),
        ({"a": GOOD, "b": GOOD}, math.nan),
        ({"a": GOOD, "b": GOOD}, math.inf),
    ],
)
def test_what_is_refused_leaves_the_mean_as_it_was(
    adapters: dict[str, Tensor], weight: float
) -> None:
    total = WeightedMean()
    total.add({"a": 3 * GOOD, "b": 5 * GOOD}, 2)
    with pytest.raises(AdapterError):
        total.add(adapters, weight)
    got = total.result({"a": GOOD, "b": GOOD})
    assert torch.equal(got["a"], 3 * GOOD)
    assert torch.equal(got["b"], 5 * GOOD)


def test_result_has_the_keys_order_and_dtypes_asked_for() -> None:
    total = WeightedMean()
    total.add({"extra": GOOD, "a": GOOD, "b": GOOD}, 1)
    otherwise = {"b": GOOD.bfloat16(), "nobody": GOOD.half(), "a": GOOD.double()}
    got = total.result(otherwise)
    assert [(name, value.dtype) for name, value in got.items()] == [
        ("b", torch.bfloat16),
        ("nobody", torch.float16),
        ("a", torch.float64),
    ]
    assert torch.equal(got["nobody"], otherwise["nobody"])


def test_what_went_in_stays_as_it_was_and_may_change_later() -> None:
    total, sent = WeightedMean(), GOOD.double()
    total.add({"a": sent}, 1.0)
    total.add({"a": sent}, 1.0)
    assert torch.equal(sent, GOOD.double())
    sent.zero_()
    assert torch.equal(total.result({"a": sent})["a"], GOOD.double())

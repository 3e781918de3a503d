"""The numbers of a round, from what each device counted."""

import math

import pytest

from elsa.core.score import Tally
from elsa.engine.scores import evaluated, of_devices
from elsa.record.events import DeviceEvaluated, Evaluated


def scores(counted: dict[str, Tally], *, causal: bool = False) -> Evaluated:
    """The scores of a run with a single task."""
    of_each, of_all = evaluated(3, counted, {"": "test"}, causal=causal)
    assert of_each == []
    return of_all


COUNTED = {
    "device-0": Tally(10, 9, 4.0),
    "device-1": Tally(2, 1, 2.0),
    "device-2": Tally(),
    "test": Tally(100, 60, 50.0),
}


def test_by_hand() -> None:
    assert scores(COUNTED) == Evaluated(
        round=3,
        loss=0.5,
        accuracy=0.6,
        accuracy_mean_device=pytest.approx(0.7),  # of devices, however many rows they hold
        accuracy_worst_device=0.5,
        perplexity=None,
    )


def test_language_model_has_a_perplexity() -> None:
    assert scores(COUNTED, causal=True).perplexity == math.exp(0.5)
    overflowing = {"test": Tally(1, 0, 1e6)}
    assert math.isfinite(scores(overflowing, causal=True).perplexity)


def test_device_with_the_common_rows_is_none_of_the_devices() -> None:
    only = scores({"test": Tally(4, 1, 2.0)})
    assert (only.accuracy_mean_device, only.accuracy_worst_device) == (None, None)


def test_a_device_that_is_always_wrong_is_the_worst_and_not_left_out() -> None:
    counted = {"device-0": Tally(5, 5, 0.1), "device-1": Tally(5, 0, 9.0), "test": Tally(1, 1, 0.1)}
    got = scores(counted)
    assert (got.accuracy_mean_device, got.accuracy_worst_device) == (0.5, 0.0)


def test_each_device_with_rows_is_told_apart_from_who_has_the_common_ones() -> None:
    assert of_devices(3, COUNTED, {"test"}) == [
        DeviceEvaluated(3, "device-0", 10, 9),
        DeviceEvaluated(3, "device-1", 2, 1),
    ]


def test_without_common_rows_there_are_no_scores_of_them() -> None:
    got = scores({"device-0": Tally(4, 2, 2.0)}, causal=True)
    assert (got.loss, got.accuracy, got.perplexity) == (None, None, None)
    assert got.accuracy_mean_device == 0.5

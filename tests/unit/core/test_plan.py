"""The planner's fluid model, against every assignment there is."""

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elsa.core.plan import BUSY, Option, fit_jointly, refined, settled, step_seconds
from elsa.core.split import Split

WHOLE = Split(1, 2, 1)


def option(seconds: float, load: float, memory: float = 0.0) -> Option:
    return Option(WHOLE, memory, seconds, load)


NUMBERS = st.integers(1, 30).map(float)
OPTIONS = st.lists(st.builds(option, NUMBERS, NUMBERS), min_size=1, max_size=4)
DEVICES = st.lists(OPTIONS, min_size=1, max_size=4).map(
    lambda lists: {f"d{number}": options for number, options in enumerate(lists)}
)


def assignments(devices: dict[str, Sequence[Option]]) -> list[dict[str, Option]]:
    return [dict(zip(devices, chosen, strict=True)) for chosen in product(*devices.values())]


@given(DEVICES)
def test_no_assignment_is_faster(devices: dict[str, Sequence[Option]]) -> None:
    found = fit_jointly(devices)
    assert all(found[name] in options for name, options in devices.items())
    best = min(step_seconds(each.values()) for each in assignments(devices))
    assert step_seconds(found.values()) == best


@given(DEVICES)
def test_lane_is_relieved_as_far_as_can_be_or_is_half_idle(
    devices: dict[str, Sequence[Option]],
) -> None:
    found = fit_jointly(devices)
    time = step_seconds(found.values())
    least = min(
        sum(it.load for it in each.values())
        for each in assignments(devices)
        if step_seconds(each.values()) <= time
    )
    assert sum(it.load for it in found.values()) <= max(least, BUSY * time)


def test_a_quick_edge_leaves_every_device_its_quickest_split() -> None:
    options = {"slow": [option(9, 1), option(12, 0.5)], "quick": [option(2, 1), option(8, 0.1)]}
    assert fit_jointly(options) == {name: own[0] for name, own in options.items()}


def test_a_slow_edge_is_relieved_by_devices_that_have_time() -> None:
    slow, quick = [option(9, 6), option(12, 3)], [option(2, 6), option(8, 1)]
    chosen = fit_jointly({"slow": slow, "quick": quick})
    assert chosen == {"slow": slow[0], "quick": quick[1]}
    assert step_seconds(chosen.values()) == 9


def test_nobody_needs_no_split() -> None:
    assert fit_jointly({}) == {}
    assert step_seconds([]) == 0


def fluid(chosen: dict[str, Option]) -> float:
    return step_seconds(chosen.values())


def waiting(chosen: dict[str, Option]) -> float:
    """A clock by which everybody waits for everybody."""
    return max(it.seconds for it in chosen.values()) + sum(it.load for it in chosen.values())


@given(DEVICES)
def test_refining_never_ends_later_than_any_start(devices: dict[str, Sequence[Option]]) -> None:
    first = {name: options[0] for name, options in devices.items()}
    starts = [first, fit_jointly(devices)]
    found = refined(starts, devices, waiting)
    assert all(found[name] in options for name, options in devices.items())
    assert waiting(found) <= min(waiting(it) for it in starts)


def test_refining_counts_the_waiting() -> None:
    """T is 10 either way; but with the second option nobody is in the way."""
    busy, idle = option(10, 5), option(9, 5)
    devices = {"a": [option(10, 1)], "b": [busy, idle, option(10, 1)]}
    assert refined([{"a": devices["a"][0], "b": idle}], devices, waiting)["b"].load == 1


@pytest.mark.parametrize(("margin", "changes"), [(0.0, True), (0.2, True), (0.3, False)])
def test_splits_stay_unless_the_new_ones_gain_more_than_the_margin(
    margin: float, changes: bool
) -> None:
    now, then = {"d": option(8, 1)}, {"d": option(6, 1)}  # 25 % less
    assert settled(now, then, margin, fluid) == (then if changes else now)


@given(DEVICES, st.floats(0, 0.9))
def test_the_best_splits_are_never_left(
    devices: dict[str, Sequence[Option]], margin: float
) -> None:
    best = fit_jointly(devices)
    assert settled(best, fit_jointly(devices), margin, fluid) == best


def test_a_device_without_a_split_that_fits_gets_one_whatever_the_margin() -> None:
    slow = {"d": option(8, 1)}
    assert settled({}, slow, 0.9, fluid) == slow

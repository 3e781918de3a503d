"""This machine as a device."""

from typing import Any

import psutil
import pytest

from elsa.engine import profile
from elsa.engine.plan import make_plan


def test_speed_is_operations_over_the_median_of_the_seconds(
    sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([0, 1, 1, 3, 3, 3.5, 4, 104, 104, 105.5])  # 1, 2, 0.5, 100 and 1.5 seconds
    monkeypatch.setattr(profile, "perf_counter", lambda: next(ticks))
    model, lengths = sources.model, [48, 48, 48, 47]
    weights = 2 * model.shape().block_weights * sum(lengths) * 2
    attention = 4 * 32 * sum(it**2 for it in lengths) * 3
    head = 2 * 2 * model.shape().head_weights * 4
    expected = (weights + attention + head) / 1.5 / 1e9
    assert profile.measured_gflops(model) == pytest.approx(expected)


def test_devices_here_are_alike_and_have_what_is_free(make: Any) -> None:
    plan = make_plan(make("network.spread=1.0"), here=True)
    limits = {it.memory_limit for it in plan.devices}
    assert len(limits) == 1
    assert 0 < limits.pop() <= psutil.virtual_memory().total
    assert all(it.fits for it in plan.devices)

"""Loops are compiled, whether or not there is a place to keep them."""

from collections.abc import Callable
from typing import Any

import numba
import pytest

from elsa.core.compiled import compiled


def test_loops_work_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = numba.njit

    def nowhere(*signature: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(*signature, **options)

    monkeypatch.setattr(numba, "njit", nowhere)

    def twice(value: float) -> float:
        return 2 * value

    assert compiled(numba.types.float64)(twice)(4.0) == 8.0

"""What is refused before anything is started, and how many threads an edge gets."""

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elsa.engine.ray.cluster import fits, joined, most_threads
from elsa.engine.ray.engine import OnRay
from elsa.errors import ConfigError

SIZES = st.lists(st.integers(0, 9), max_size=4)


@given(SIZES, st.integers(1, 6))
def test_edges_get_as_many_threads_as_machines_have_room_for(sizes: list[int], edges: int) -> None:
    threads = most_threads(sizes, edges)
    assert not threads or fits(sizes, edges, threads)
    assert not any(fits(sizes, edges, more) for more in range(threads + 1, 11))


@pytest.mark.parametrize(
    ("override", "trace", "said"),
    [
        ("run.seed=1", Path("out.json"), "--trace out.json goes with --engine embedded"),
        ("audit.record_rounds=2", None, "audit.record_rounds = 2 goes with --engine embedded"),
        ("wire.folder=there", None, "wire.folder = 'there' goes with --engine embedded"),
    ],
)
def test_what_edges_elsewhere_cannot_do_is_refused(
    make: Any, override: str, trace: Path | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        OnRay().check(make(override), trace)
    OnRay().check(make(), None)


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(ConfigError, match=r"Ray is not installed.*elsa\[ray\].*make ray"),
        joined("", 2, 1, lambda _: None),
    ):
        pass
    assert signal.getsignal(signal.SIGTERM) == before

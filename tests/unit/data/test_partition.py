"""Partitions: every row on one device, decided by the seed alone, skewed as alpha says."""

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from flwr_datasets.common import telemetry
from hypothesis import given, settings
from hypothesis import strategies as st

from elsa.data.partition import Kind, Rows, partition
from elsa.errors import DataError

ROWS = 600
LABELS: Rows = np.arange(ROWS) % 6
GROUPS = [f"user {n % 13}" for n in range(ROWS)]
KINDS: list[Kind] = ["iid", "dirichlet", "group"]


def split(kind: Kind, devices: int = 5, seed: int = 0, **more: Any) -> list[Rows]:
    return partition(ROWS, kind, devices, seed, labels=LABELS, groups=GROUPS, **more)


def mean_entropy(shares: list[Rows]) -> float:
    """Mean over devices of the entropy of their labels, in nats; log 6 = 1.79 is even."""
    total = 0.0
    for rows in shares:
        share = np.bincount(LABELS[rows]) / len(rows)
        total -= float(sum(p * np.log(p) for p in share if p))
    return total / len(shares)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(devices=st.integers(1, 13), seed=st.integers(0, 2**32 - 1))
def test_every_row_is_on_exactly_one_device(kind: Kind, devices: int, seed: int) -> None:
    shares = split(kind, devices, seed)
    assert len(shares) == devices
    assert min(len(rows) for rows in shares) >= 1
    assert sorted(np.concatenate(shares).tolist()) == list(range(ROWS))


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_and_global_state_is_neither_read_nor_changed(kind: Kind) -> None:
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    before = (np.random.get_state()[1].tolist(), random.getstate())  # type: ignore[union-attr,index]  # noqa: NPY002
    first = split(kind, seed=7)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # type: ignore[union-attr,index]  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    again = split(kind, seed=7)
    other = split(kind, seed=8)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_iid_shares_are_even_and_of_all_classes() -> None:
    shares = split("iid")
    assert {len(rows) for rows in shares} == {120}
    assert mean_entropy(shares) > 1.7


def test_alpha_is_the_skew() -> None:
    entropies = [
        np.mean([mean_entropy(split("dirichlet", seed=s, alpha=alpha)) for s in range(5)])
        for alpha in (0.05, 0.5, 5.0, 1000.0)
    ]
    assert entropies == sorted(entropies)
    assert entropies[0] < 0.6
    assert entropies[-1] > 1.78
    sizes = [len(rows) for rows in split("dirichlet", alpha=1000.0)]
    assert max(sizes) - min(sizes) < 24  # sizes even out as well: 120 each within a fifth


def test_dirichlet_keeps_the_floor_by_drawing_again() -> None:
    # A floor of 40 is met by about 1 draw in 20: more than one partitioner tries by itself.
    shares = [split("dirichlet", 8, seed, alpha=0.3, min_rows=40) for seed in range(8)]
    assert min(len(rows) for seed in shares for rows in seed) >= 40


def test_dirichlet_does_not_cap_the_large_devices() -> None:
    # With the partitioner's self-balancing no device could pass the mean plus one class, 220.
    shares = [split("dirichlet", 5, seed, alpha=0.1) for seed in range(4)]
    assert max(len(rows) for seed in shares for rows in seed) > 250


@pytest.mark.parametrize(
    ("kind", "devices", "more", "message"),
    [
        ("dirichlet", 50, {"alpha": 0.05, "min_rows": 10}, r"Dirichlet\(alpha = 0\.05\).*raise"),
        ("iid", 61, {"min_rows": 10}, r"600 rows cannot give 61 devices 10 rows each: lower"),
        ("group", 14, {}, r"data\.group has 13 groups for federation\.devices = 14"),
        ("group", 5, {"min_rows": 110}, r"only 9\d rows, fewer than partition\.min_rows = 110"),
        ("natural", 12, {}, r"has 13 groups, federation\.devices = 12\. Set federation\.devices"),
    ],
)
def test_what_cannot_be_met_says_which_setting_to_change(
    kind: Kind, devices: int, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        split(kind, devices, **more)


def test_labels_and_groups_must_be_there() -> None:
    with pytest.raises(DataError, match="needs labels, and these rows have none"):
        partition(10, "dirichlet", 2, 0)
    with pytest.raises(DataError, match=r"'group' needs data\.group, and these rows have no"):
        partition(10, "group", 2, 0)


def test_groups_stay_whole_and_spread_evenly() -> None:
    names = [{GROUPS[row] for row in rows} for rows in split("group", devices=5)]
    assert sorted(len(known) for known in names) == [2, 2, 3, 3, 3]
    assert sum(len(known) for known in names) == len(set.union(*names)) == 13


def test_natural_is_one_group_a_device_in_order() -> None:
    shares = split("natural", devices=13)
    assert [{GROUPS[row] for row in rows} for rows in shares] == [
        {name} for name in sorted(set(GROUPS))
    ]


@pytest.mark.parametrize("kind", [*KINDS, "natural"])
def test_it_is_silent_and_reports_nothing(
    kind: Kind, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The library's own natural partitioner draws a progress bar; its dataset class phones home.
    sent: list[object] = []
    monkeypatch.setattr(telemetry, "create_event", lambda *event: sent.append(event))
    split(kind, devices=13)
    assert capfd.readouterr() == ("", "")
    assert sent == []


def test_plots_are_imported_only_by_who_wants_them() -> None:
    # They take as long as the rest of a start, and a fifth of a simulation's memory.
    code = (
        "import sys; from elsa.data.partition import partition; partition(9, 'iid', 3, 0);"
        "assert not {'matplotlib', 'seaborn'} & set(sys.modules);"
        "from flwr_datasets import visualization; assert visualization.plot_label_distributions;"
        "import flwr_datasets; assert flwr_datasets.visualization is visualization"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)

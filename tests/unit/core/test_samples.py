"""What is remembered of samples: bounded, oldest out first, and never a broken value."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elsa.core.samples import Known, SampleStore
from elsa.errors import ConfigError

TAG = b"12345678"
VALUES = torch.arange(12.0).view(3, 4)
COST = 2 * 12 + 64


@pytest.fixture(params=["memory", "disk"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "samples" if request.param == "disk" else None


def held(store: SampleStore) -> list[int]:
    return [sample for sample in range(20) if store.get(sample) is not None]


def test_what_was_put_is_got(folder: Path | None) -> None:
    store = SampleStore(10**4, folder)
    values = VALUES.clone()
    store.put(3, Known.of(TAG, values))
    values += 1  # the store's copy is its own
    known = store.get(3)
    assert known is not None
    assert (known.tag, known.values.dtype) == (TAG, torch.bfloat16)
    assert torch.equal(known.values.float(), VALUES)
    assert store.get(4) is None


def test_oldest_goes_first(folder: Path | None) -> None:
    store = SampleStore(3 * COST, folder)
    for sample in (0, 1, 2):
        store.put(sample, Known.of(TAG, VALUES))
    store.touch(0)
    store.get(1)  # looking at a sample does not make it younger
    store.put(3, Known.of(TAG, VALUES))
    assert held(store) == [0, 2, 3]
    store.put(2, Known.of(TAG, VALUES))
    store.put(4, Known.of(TAG, VALUES))
    store.put(5, Known.of(TAG, VALUES))
    assert held(store) == [2, 4, 5]
    assert store.used == 3 * COST
    if folder is not None:
        assert len(list(folder.iterdir())) == 3


@settings(deadline=None)
@given(
    st.integers(0, 400),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6), st.booleans()), max_size=30),
)
def test_capacity_is_never_exceeded(capacity: int, turns: list[tuple[int, int, bool]]) -> None:
    store = SampleStore(capacity)
    for sample, length, touch in turns:
        if touch:
            store.touch(sample)
        else:
            store.put(sample, Known.of(TAG, torch.zeros(length, 4)))
        sizes = [known.values.nbytes for it in range(6) if (known := store.get(it)) is not None]
        assert store.used == sum(sizes) + 64 * len(sizes) <= capacity


@settings(deadline=None)
@given(
    st.integers(0, 600),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=30),
)
def test_many_at_once_are_as_one_after_the_other(
    capacity: int, turns: list[tuple[int, int]]
) -> None:
    one, other = SampleStore(capacity), SampleStore(capacity)
    states = [
        Known.of(TAG, torch.full((length, 4), 1.0)) if length else None for _, length in turns
    ]
    samples = [sample for sample, _ in turns]
    one.put_all(samples, states)
    for sample, known in zip(samples, states, strict=True):
        if known is None:
            other.touch(sample)
        else:
            other.put(sample, known)
    assert one.used == other.used <= capacity
    assert one.get_all(range(6)) == [other.get(sample) for sample in range(6)]
    assert one.state()["samples"].tolist() == other.state()["samples"].tolist()


def test_many_at_once_lie_on_disk_too(tmp_path: Path) -> None:
    store = SampleStore(2 * COST, tmp_path / "samples")
    store.put_all(
        [1, 2, 1, 3], [Known.of(TAG, VALUES), Known.of(TAG, VALUES), None, Known.of(TAG, VALUES)]
    )
    assert held(store) == [1, 3]
    assert [it is not None for it in store.get_all([1, 2, 3])] == [True, False, True]
    assert len(list((tmp_path / "samples").iterdir())) == 2


def test_too_large_for_the_store_is_forgotten(folder: Path | None) -> None:
    store = SampleStore(COST, folder)
    store.put(1, Known.of(TAG, VALUES))
    store.put(1, Known.of(TAG, torch.zeros(100, 4)))
    assert held(store) == []
    assert store.used == 0


def test_state_comes_back_in_order(folder: Path | None) -> None:
    store = SampleStore(3 * COST, folder)
    for sample in (2, 0, 1):
        store.put(sample, Known.of(bytes([sample] * 8), VALUES + sample))
    again = SampleStore(3 * COST, folder)
    again.restore(store.state())
    again.put(3, Known.of(TAG, VALUES))  # pushes out the oldest, which is 2
    assert held(again) == [0, 1, 3]
    known = again.get(1)
    assert known is not None
    assert known.tag == bytes([1] * 8)
    assert torch.equal(known.values.float(), VALUES + 1)


def test_empty_state_comes_back(folder: Path | None) -> None:
    store = SampleStore(COST, folder)
    store.restore(SampleStore(COST, folder).state())
    assert len(store) == 0


def test_state_of_a_larger_store_is_cut_to_size() -> None:
    store = SampleStore(3 * COST)
    for sample in (2, 0, 1):
        store.put(sample, Known.of(TAG, VALUES))
    small = SampleStore(COST)
    small.restore(store.state())
    assert held(small) == [1]


def test_state_kept_on_disk_is_no_use_in_memory(tmp_path: Path) -> None:
    store = SampleStore(COST, tmp_path)
    store.put(1, Known.of(TAG, VALUES))
    other = SampleStore(COST)
    other.restore(store.state())
    assert held(other) == []


@pytest.mark.parametrize("harm", ["flip", "cut", "grow", "remove", "swap", "later"])
def test_broken_file_is_as_if_it_had_never_been(tmp_path: Path, harm: str) -> None:
    store = SampleStore(10**4, tmp_path)
    store.put(1, Known.of(TAG, VALUES))
    store.put(2, Known.of(b"abcdefgh", VALUES))
    path = tmp_path / "1.sample"
    data = bytearray(path.read_bytes())
    if harm == "flip":
        data[-3] ^= 1
        path.write_bytes(data)
    elif harm == "cut":
        path.write_bytes(data[:9])
    elif harm == "grow":
        path.write_bytes(data + b"\0")
    elif harm == "remove":
        path.unlink()
    elif harm == "swap":
        path.write_bytes((tmp_path / "2.sample").read_bytes())
    else:  # a later state, from after the checkpoint that is gone back to
        state = store.state()
        store.put(1, Known.of(b"87654321", VALUES + 1))
        store.restore(state)
    assert store.get(1) is None
    assert held(store) == [2]
    assert store.used == COST


def test_files_of_another_run_are_removed(tmp_path: Path) -> None:
    SampleStore(10**4, tmp_path).put(1, Known.of(TAG, VALUES))
    store = SampleStore(10**4, tmp_path)
    assert store.get(1) is None
    store.put(2, Known.of(TAG, VALUES))
    assert [path.name for path in tmp_path.iterdir()] == ["2.sample"]


def test_disk_that_takes_nothing_costs_memory_only(tmp_path: Path) -> None:
    store = SampleStore(10**4, tmp_path)
    store.put(1, Known.of(TAG, VALUES))
    (tmp_path / "2.sample").mkdir()  # stands in for any write that fails
    store.put(2, Known.of(TAG, VALUES))
    assert store.get(2) is None
    assert store.get(1) is not None


def test_negative_capacity_is_refused() -> None:
    with pytest.raises(ConfigError, match="capacity of -1"):
        SampleStore(-1)

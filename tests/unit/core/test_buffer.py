"""A buffer of updates: whatever happens, each is counted once at most, and none is forgotten."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elsa.core.buffer import Buffer, enough, rebased, staleness_weight

DEVICES = "abcde"
MOVES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["begin", "come", "lose"]), st.sampled_from(DEVICES)),
        st.tuples(st.just("average"), st.just("")),
    ),
    max_size=60,
)


@given(MOVES)
def test_no_update_is_lost_or_counted_twice(moves: list[tuple[str, str]]) -> None:
    """Against a ledger of every update ever begun, by a number of its own."""
    buffer, averages, begun = Buffer(), 0, 0
    own: dict[str, int] = {}  # number of each device's update under way
    since: dict[int, int] = {}  # averages that had been taken when an update began
    came: set[int] = set()
    counted: Counter[int] = Counter()
    lost: Counter[int] = Counter()
    for move, device in moves:
        if move == "begin" and device not in own:
            buffer = buffer.begin(device)
            own[device], since[begun] = begun, averages
            begun += 1
        elif move == "come" and device in own and own[device] not in came:
            buffer = buffer.come(device)
            came.add(own[device])
        elif move == "lose":
            buffer = buffer.lose(device)
            if device in own:
                lost[own.pop(device)] += 1
        elif move == "average":
            now, buffer = buffer.average()
            assert now.keys() == {it for it, update in own.items() if update in came}
            for it, staleness in now.items():
                assert staleness == averages - since[own[it]]
                counted[own.pop(it)] += 1
            averages += 1
    waiting = [own[it] for it in (*buffer.away, *buffer.there)]
    assert sorted([*counted.elements(), *lost.elements(), *waiting]) == list(range(begun))
    assert set(counted) <= came
    assert buffer.number == averages


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 40))
def test_enough_is_the_part_asked_for_rounded_up(part: int, more: int, times: int) -> None:
    whole = part + more
    # A part of n / m of k m devices is exactly k n, whatever floating point makes of it.
    assert enough(part / whole, whole * times) == part * times
    assert enough(1.0, whole) == whole
    assert 1 <= enough(part / whole, times) <= times
    assert enough(0.5, 0) == 0


def test_weights_fall_with_staleness_from_one() -> None:
    assert staleness_weight(0, 0.5) == 1.0
    assert staleness_weight(3, 0.5) == pytest.approx(0.5)
    assert staleness_weight(3, 0.0) == 1.0
    weights = [staleness_weight(it, 1.0) for it in range(5)]
    assert weights == [1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5]


def test_what_was_learned_is_added_to_what_is_there_by_hand() -> None:
    begun, now = {"w": torch.tensor([1.0, 2.0]), "v": torch.zeros(1)}, torch.tensor([5.0, 5.0])
    update = {"w": torch.tensor([3.0, 1.0])}
    got = rebased(update, begun, {"w": now, "v": torch.ones(1)}, 0.5)
    assert got.keys() == {"w"}
    assert got["w"].tolist() == [6.0, 4.5]


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=5), st.integers(0, 2**31))
def test_a_fresh_update_is_itself_and_one_of_no_weight_changes_nothing(
    values: list[float], seed: int
) -> None:
    update = {"w": torch.tensor(values)}
    now = {"w": torch.randn(len(values), generator=torch.Generator().manual_seed(seed))}
    assert torch.equal(rebased(update, now, now, 1.0)["w"], update["w"])
    assert torch.equal(rebased(update, now, now, 0.0)["w"], now["w"])

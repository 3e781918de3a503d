"""Directions: what they keep, what they forget, and what is no direction."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.moves import angles, move, packed_move, shared_axes, unpacked_moves
from elsa.errors import BehaviourError

SEEDS = st.integers(0, 2**31)


def states(seed: int, probes: int = 12, hidden: int = 20) -> Tensor:
    return torch.randn(probes, hidden, generator=torch.Generator().manual_seed(seed))


def moves(seed: int, count: int = 6, hidden: int = 20) -> Tensor:
    axes = shared_axes(hidden, hidden, seed)
    return torch.stack([move(states(seed), states(seed + n + 1), axes) for n in range(count)])


@given(seed=SEEDS, far=st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_how_far_and_what_all_probes_share_at_the_start_do_not_count(seed: int, far: float) -> None:
    before, after, axes = states(seed).double(), states(seed + 1).double(), shared_axes(20, 8, 0)
    plain = move(before, after, axes)
    assert float(plain.norm()) == pytest.approx(1.0)
    further = move(before, before + far * (after - before), axes)
    torch.testing.assert_close(further, plain, atol=1e-6, rtol=0)
    shift = states(seed + 2).double()
    torch.testing.assert_close(move(before + shift, after + shift, axes), plain)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(move(before[order], after[order], axes), plain)


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_all_axes_keep_angles_and_the_way_back_is_the_other_way(seed: int) -> None:
    before, one, other = states(seed).double(), states(seed + 1).double(), states(seed + 2).double()
    axes = shared_axes(20, 256, seed)
    assert axes.shape == (20, 20)
    found = angles(torch.stack([move(before, it, axes) for it in (one, other, 2 * before - one)]))
    cosine = torch.cosine_similarity((one - before).mean(0), (other - before).mean(0), dim=0)
    assert float(found[0, 1]) == pytest.approx(1 - float(cosine), abs=1e-9)
    assert float(found[0, 2]) == pytest.approx(2.0)


def test_some_axes_keep_angles_nearly() -> None:
    exact, few = (
        angles(
            torch.stack([move(states(5, 12, 384), states(6 + n, 12, 384), axes) for n in range(12)])
        )
        for axes in (shared_axes(384, 384, 5), shared_axes(384, 256, 5))
    )
    assert float((few - exact).abs().max()) < 0.15  # a cosine errs by some 0.03 of 256 numbers


def test_axes_are_orthonormal_and_drawn_by_the_seed_alone() -> None:
    axes = shared_axes(30, 7, 3)
    torch.testing.assert_close(axes.T @ axes, torch.eye(7, dtype=torch.float64))
    assert torch.equal(axes, shared_axes(30, 7, 3))
    assert not torch.equal(axes, shared_axes(30, 7, 4))


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_angles_are_symmetric_zero_on_themselves_and_half_precision_keeps_them(seed: int) -> None:
    found = moves(seed)
    apart = angles(found)
    assert torch.equal(apart, apart.T)
    assert torch.equal(apart.diagonal(), torch.zeros(6, dtype=torch.float64))
    assert bool(((apart >= 0) & (apart <= 2)).all())
    sent = [packed_move(it) for it in found]
    assert {len(it) for it in sent} == {40}
    torch.testing.assert_close(angles(unpacked_moves(sent, 20)), apart, atol=2e-3, rtol=0)


def test_who_did_not_move_is_at_a_right_angle_to_all_who_did() -> None:
    axes = shared_axes(20, 5, 0)
    still = move(states(1), states(1), axes)
    assert not still.any()
    found = angles(torch.stack([still, move(states(1), states(2), axes), still]))
    expected = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    assert not unpacked_moves([packed_move(still)], 5).any()


def test_nobody_has_no_angles() -> None:
    assert angles(unpacked_moves([], 5)).shape == (0, 0)


@pytest.mark.parametrize(
    "packed",
    [
        [b""],
        [b"123"],
        [bytes(12)],  # more than five numbers
        [bytes(8), bytes(10)],
        [b"\x00\x7c" + bytes(8)],  # infinite
        [b"\x00\x7e" + bytes(8)],  # NaN
        [b"\x00\x40" + bytes(8)],  # two long
        [b"\x00\x34" + bytes(8)],  # a quarter long
    ],
)
def test_what_is_no_direction_is_refused(packed: list[bytes]) -> None:
    with pytest.raises(BehaviourError):
        unpacked_moves(packed, 5)


def test_states_that_are_not_finite_are_refused() -> None:
    bad = states(1)
    bad[3, 4] = torch.inf
    with pytest.raises(BehaviourError, match="NaN or infinity"):
        move(states(1), bad, shared_axes(20, 5, 0))

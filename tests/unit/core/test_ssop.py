"""SS-OP turns as far as asked, back exactly, and tells nobody how."""

import copy
import dataclasses
import io
import json
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.secret import Secret, SecretSeed
from elsa.core.ssop import Fresh, Rotation, Rotations, Subspace, check_angle, check_rank
from elsa.errors import ConfigError, DataError, ElsaError

KEY = b"a key of a device, 24 by"
SEED = SecretSeed(KEY)
TOKENS, HIDDEN = 50, 24

ranks = st.integers(2, HIDDEN)
angles = st.floats(0.001, 1.0)
seeds = st.integers(0, 1000)


def draws(number: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


def states(number: int = 0) -> Tensor:
    """Away from the origin, and wider in some directions than in others."""
    scale = torch.linspace(3, 0.1, HIDDEN)
    mix: Tensor = torch.linalg.qr(draws(number + 1000, (HIDDEN, HIDDEN))).Q
    return (draws(number, (TOKENS, HIDDEN)) * scale) @ mix + draws(number + 2000, (HIDDEN,))


def rotation(rank: int, angle: float, number: int = 0, about: str = "mean") -> Rotation:
    assert about in ("mean", "origin")
    subspace = Subspace.fit(states(number), rank, SEED.derive(number), about)  # type: ignore[arg-type]
    return Rotation.draw(subspace, angle, SEED.derive("turn", number))


def matrix(turned: Callable[[Tensor], Tensor]) -> Tensor:
    """Q [D, D] of x -> (x - mu) Q + mu, row by row."""
    return turned(torch.eye(HIDDEN)) - turned(torch.zeros(1, HIDDEN))


@settings(deadline=None, max_examples=40)
@given(ranks, st.floats(0, 1), seeds)
def test_is_orthogonal_and_proper(rank: int, angle: float, number: int) -> None:
    q = matrix(rotation(rank, angle, number).forward)
    torch.testing.assert_close(q @ q.T, torch.eye(HIDDEN), atol=1e-5, rtol=0)
    assert torch.linalg.det(q).item() == pytest.approx(1, abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(ranks, st.floats(0, 1), seeds)
def test_inverse_undoes_forward(rank: int, angle: float, number: int) -> None:
    turn, x = rotation(rank, angle, number), states(number)
    torch.testing.assert_close(turn.inverse(turn.forward(x)), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(turn.forward(turn.inverse(x)), x, atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=40)
@given(ranks, angles, seeds, st.sampled_from(["mean", "origin"]))
def test_the_origin_stays_and_distances_from_it(
    rank: int, angle: float, number: int, about: str
) -> None:
    turn, x = rotation(rank, angle, number, about), states(number)
    origin = x.mean(0) if about == "mean" else torch.zeros(HIDDEN)
    torch.testing.assert_close(turn.forward(origin), origin, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        (turn.forward(x) - origin).norm(dim=1), (x - origin).norm(dim=1), atol=1e-4, rtol=0
    )


@settings(deadline=None, max_examples=40)
@given(ranks, angles, seeds)
def test_largest_angle_is_the_one_asked_for(rank: int, angle: float, number: int) -> None:
    q = matrix(rotation(rank, angle, number).forward).double()
    found = torch.linalg.eigvals(q).angle().abs().max().item()
    # float32 shows an angle near half a turn, whose cosine is flat there, to its square root
    assert found == pytest.approx(angle * math.pi, abs=2e-3)


@settings(deadline=None, max_examples=40)
@given(ranks, angles, seeds)
def test_nothing_outside_the_subspace_moves(rank: int, angle: float, number: int) -> None:
    q = matrix(rotation(rank, angle, number).forward)
    moved = torch.linalg.svdvals(q - torch.eye(HIDDEN))
    assert int((moved > 1e-4).sum()) == 2 * (rank // 2) if angle > 0.1 * rank else True
    assert int((moved > 1e-4).sum()) <= 2 * (rank // 2)


def test_angles_spread_evenly_up_to_the_largest() -> None:
    # A distribution that bunches near zero would turn most planes hardly at all.
    places = torch.arange(1, HIDDEN // 2 + 1)
    seen = []
    for number in range(2):
        q = matrix(rotation(HIDDEN, 1.0, number).forward).double()
        turns = torch.linalg.eigvals(q).angle().abs().sort().values.view(-1, 2).mean(1)
        shares = turns / math.pi * len(places)
        assert bool((shares <= places + 1e-2).all() and (shares >= places - 1 - 1e-2).all())
        seen.append(shares)
    assert bool(((seen[0] - seen[1]).abs()[:-1] > 1e-3).all())


def test_planes_turn_either_way() -> None:
    # The columns of a plain QR have fixed signs, and a plane of rank 2 would always turn alike.
    subspace = Subspace(torch.eye(2), torch.zeros(2))
    x = torch.tensor([1.0, 0.0])
    ways = [Rotation.draw(subspace, 0.5, SEED.derive(it)).forward(x)[1] > 0 for it in range(20)]
    assert 4 < sum(map(int, ways)) < 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_angle_zero_is_the_identity_exactly(dtype: torch.dtype) -> None:
    turn, x = rotation(8, 0.0), states().to(dtype)
    assert torch.equal(turn.forward(x), x)
    assert torch.equal(turn.inverse(x), x)


def test_direction_of_a_turn_by_hand() -> None:
    # Rank 2 has one plane: a quarter turn takes one axis to the other, up to the sign drawn.
    subspace = Subspace(torch.eye(3)[:, :2], torch.tensor([1.0, 1.0, 5.0]))
    turn = Rotation.draw(subspace, 0.5, SEED)
    got = turn.forward(torch.tensor([[3.0, 1.0, 7.0]]))
    assert got[0, 0].item() == pytest.approx(1, abs=1e-6)
    assert abs(got[0, 1].item() - 1) == pytest.approx(2, abs=1e-6)
    assert got[0, 2].item() == 7


@settings(deadline=None, max_examples=20)
@given(ranks, angles, seeds)
def test_gradients_are_those_of_the_composed_function(rank: int, angle: float, number: int) -> None:
    """The four hops with tensors cut at the wire, against one graph with Q written out."""
    turn, x = rotation(rank, angle, number), states(number)
    weight, head = draws(number + 1, (HIDDEN, HIDDEN)) / 5, draws(number + 2, (HIDDEN,))
    whole = x.clone().requires_grad_()
    q, mean = matrix(turn.forward), x.mean(0)
    seen = (whole - mean) @ q + mean
    back = (torch.tanh(seen @ weight) + seen - mean) @ q.T + mean
    loss = torch.tanh(back @ head).sum()
    (expected,) = torch.autograd.grad(loss, whole)

    h1 = x.clone().requires_grad_()
    sent = turn.forward(h1)
    at_edge = sent.detach().requires_grad_()
    h2_edge = torch.tanh(at_edge @ weight) + at_edge
    h2 = h2_edge.detach().requires_grad_()
    cut = torch.tanh(turn.inverse(h2) @ head).sum()
    torch.autograd.backward(cut)
    torch.autograd.backward(h2_edge, h2.grad)
    torch.autograd.backward(sent, at_edge.grad)
    torch.testing.assert_close(cut, loss, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(h1.grad, expected, atol=1e-4, rtol=1e-3)


def test_gradient_sent_is_rotated_and_the_one_received_turned_back() -> None:
    turn, q = rotation(8, 0.7), matrix(rotation(8, 0.7).forward)
    h2, g2 = states(3).requires_grad_(), draws(4, (TOKENS, HIDDEN))
    (sent,) = torch.autograd.grad(turn.inverse(h2), h2, g2)
    torch.testing.assert_close(sent, g2 @ q, atol=1e-5, rtol=0)
    h1, g1 = states(5).requires_grad_(), draws(6, (TOKENS, HIDDEN))
    (own,) = torch.autograd.grad(turn.forward(h1), h1, g1)
    torch.testing.assert_close(own, g1 @ q.T, atol=1e-5, rtol=0)


def test_autograd_check_in_double() -> None:
    turn, x = rotation(6, 0.4), states()[:4].double().requires_grad_()
    assert torch.autograd.gradcheck(turn.forward, x)
    assert torch.autograd.gradcheck(turn.inverse, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtype_and_shape_stay(dtype: torch.dtype) -> None:
    turn, x = rotation(8, 0.5), states().to(dtype).view(5, 10, HIDDEN)
    got = turn.forward(x)
    assert (got.dtype, got.shape) == (dtype, x.shape)
    # computed in float32 at least, then rounded once
    error = 2 * torch.finfo(dtype).eps + 1e-6
    torch.testing.assert_close(got.float(), turn.forward(x.float()), atol=error, rtol=error)
    assert turn.forward(x[:0]).shape == (0, 10, HIDDEN)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 12), seeds, st.sampled_from(["mean", "origin"]))
def test_directions_hold_nearly_all_that_so_many_can(rank: int, number: int, about: str) -> None:
    x = states(number)
    centred = x - x.mean(0) if about == "mean" else x
    fitted = Subspace.fit(x, rank, SEED, about)._directions  # type: ignore[arg-type]
    assert fitted.shape == (HIDDEN, rank)
    torch.testing.assert_close(
        fitted.T @ fitted, torch.eye(rank, dtype=torch.float64), atol=1e-10, rtol=0
    )
    best = torch.linalg.svdvals(centred)[:rank].square().sum().item()
    assert (centred.double() @ fitted).square().sum().item() >= 0.99 * best


@pytest.mark.parametrize("tokens", [1, 3])
def test_few_states_still_give_orthonormal_directions(tokens: int) -> None:
    fitted = Subspace.fit(states()[:tokens], 8, SEED)._directions
    torch.testing.assert_close(
        fitted.T @ fitted, torch.eye(8, dtype=torch.float64), atol=1e-10, rtol=0
    )


def test_nothing_of_size_hidden_squared_is_made() -> None:
    # 40,000 squared floats would be 6.4 GB: this ends in a moment or not at all.
    wide = draws(0, (20, 40_000))
    turn = Rotation.draw(Subspace.fit(wide, 4, SEED), 0.5, SEED)
    torch.testing.assert_close(turn.inverse(turn.forward(wide)), wide, atol=1e-5, rtol=0)


def turned(rotations: Rotations, *epoch: int) -> Tensor:
    return rotations.at(epoch[0], *epoch[1:]).forward(states())


def rotations(fresh: Fresh, key: bytes = KEY) -> Rotations:
    return Rotations(Subspace.fit(states(), 8, SEED), 1.0, fresh, SecretSeed(key))


@pytest.mark.parametrize(
    ("fresh", "same_batch", "same_round"),
    [("fixed", True, True), ("round", True, False), ("batch", False, False)],
)
def test_a_rotation_lives_as_long_as_told(fresh: Fresh, same_batch: bool, same_round: bool) -> None:
    one, first = rotations(fresh), turned(rotations(fresh), 1, 2, 3)
    assert torch.equal(turned(one, 1, 2, 3), first)
    assert torch.equal(turned(one, 1, 2, 4), first) is same_batch
    assert torch.equal(turned(one, 2, 2, 3), first) is same_round
    # back where it was, after others: what a resumed run needs
    assert torch.equal(turned(one, 1, 2, 3), first)


def test_devices_differ() -> None:
    one, other = rotations("fixed"), rotations("fixed", KEY[::-1])
    difference = (turned(one, 0) - turned(other, 0)).norm() / turned(one, 0).norm()
    assert difference > 0.1


def test_an_epoch_is_not_another_one_written_alike() -> None:
    assert not torch.equal(turned(rotations("batch"), 1, 12), turned(rotations("batch"), 11, 2))


SECRETS = [
    SEED,
    Subspace.fit(states(), 8, SEED),
    rotation(8, 1.0),
    rotations("batch"),
]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: type(secret).__name__)
def test_secrets_are_neither_shown_nor_saved(secret: Secret) -> None:
    name = type(secret).__name__
    assert repr(secret) == str(secret) == f"{secret}" == f"<{name}: secret>"
    assert not hasattr(secret, "__dict__")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(ElsaError, match=f"{name} is a device's secret"):
            pickle.dumps(secret, protocol)
    refused: list[Callable[[], object]] = [
        lambda: torch.save({"state": secret}, io.BytesIO()),
        lambda: copy.copy(secret),
        lambda: copy.deepcopy(secret),
        secret.__getstate__,
        secret.__reduce__,
        lambda: secret.__reduce_ex__(2),
    ]
    for save in refused:
        with pytest.raises(ElsaError, match=name):
            save()
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(TypeError):
        vars(secret)
    assert not dataclasses.is_dataclass(secret)


def test_a_dataclass_that_holds_one_gives_nothing_away() -> None:
    @dataclasses.dataclass
    class Holder:
        secret: Secret

    assert repr(Holder(SEED)).endswith("(secret=<SecretSeed: secret>)")
    with pytest.raises(ElsaError, match="SecretSeed"):
        dataclasses.asdict(Holder(SEED))


def test_a_derived_seed_depends_on_every_part() -> None:
    parts: list[tuple[str | int, ...]] = [(), ("a",), ("b",), (1,), ("1",), (1, 2), (12,), ("a", 1)]
    drawn = {tuple(SEED.derive(*it).normal((4,)).tolist()) for it in parts}
    drawn.add(tuple(SEED.normal((4,)).tolist()))
    drawn.add(tuple(SecretSeed(KEY[::-1]).normal((4,)).tolist()))
    assert len(drawn) == len(parts) + 2


def test_every_bit_of_the_key_counts() -> None:
    # torch's own generators would keep 32 bits of it, which can be searched.
    firsts = set()
    for bit in range(8 * len(KEY)):
        key = (int.from_bytes(KEY) ^ (1 << bit)).to_bytes(len(KEY))
        firsts.add(SecretSeed(key).uniform(1).item())
    assert len(firsts) == 8 * len(KEY)


def test_numbers_have_their_distribution() -> None:
    normal, uniform = SEED.normal((100, 100)), SEED.uniform(10_000)
    assert normal.mean().item() == pytest.approx(0, abs=0.04)
    assert normal.std().item() == pytest.approx(1, abs=0.04)
    assert np.histogram(uniform, 4, (0, 1))[0] == pytest.approx(2500, abs=200)
    assert bool(torch.isfinite(normal).all())


def test_numbers_stay_what_they_are() -> None:
    # A run resumed under a later version must go on with its rotation.
    assert SEED.uniform(1).item() == pytest.approx(0.1880597399415071, abs=1e-15)
    assert SEED.derive("a", 1).uniform(1).item() == pytest.approx(0.133712811420367, abs=1e-15)


def test_global_randomness_is_not_touched() -> None:
    before = torch.random.get_rng_state()
    rotation(8, 0.5)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("rank", [-1, 0, 1, HIDDEN + 1])
def test_impossible_rank_is_refused(rank: int) -> None:
    with pytest.raises(ConfigError, match=f"rank {rank}: allowed are 2 to {HIDDEN}"):
        Subspace.fit(states(), rank, SEED)
    with pytest.raises(ConfigError, match="rank"):
        check_rank(rank, HIDDEN)


@pytest.mark.parametrize("angle", [-0.1, 1.01, math.inf, math.nan])
def test_impossible_angle_is_refused(angle: float) -> None:
    subspace = Subspace.fit(states(), 4, SEED)
    for refuse in (
        lambda: Rotation.draw(subspace, angle, SEED),
        lambda: Rotations(subspace, angle, "fixed", SEED),
        lambda: check_angle(angle),
    ):
        with pytest.raises(ConfigError, match="allowed are 0"):
            refuse()


def test_states_that_give_no_direction_are_refused() -> None:
    with pytest.raises(DataError, match="0 tokens"):
        Subspace.fit(states()[:0], 4, SEED)
    with pytest.raises(DataError, match="NaN"):
        Subspace.fit(states().index_fill(0, torch.tensor([1]), math.inf), 4, SEED)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="15 bytes"):
        SecretSeed(b"x" * 15)

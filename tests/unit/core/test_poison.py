import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from elsa.core.poison import FreeRide, Noise, Stretch

factors = st.floats(0.1, 10).flatmap(lambda size: st.sampled_from([size, -size]))


def drawn(seed: int = 1) -> Generator:
    return torch.Generator().manual_seed(seed)


def values(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=drawn(seed))


START, TRAINED, G2 = values(2, 6, 4), values(3, 6, 4), values(4, 9, 5)


@given(factors)
def test_a_stretched_update_goes_so_many_times_as_far(factor: float) -> None:
    sent = Stretch(factor).adapters(START, TRAINED, drawn())
    assert torch.allclose(sent - START, factor * (TRAINED - START), atol=1e-4)
    assert torch.equal(Stretch(factor).gradient(G2, drawn()), factor * G2)


@given(factors)
def test_what_comes_back_through_a_linear_map_is_the_honest_gradient(factor: float) -> None:
    backward, attack = values(5, 5, 5), Stretch(factor)
    found = attack.returned(attack.gradient(G2, drawn()) @ backward)
    assert torch.allclose(found, G2 @ backward, rtol=1e-4, atol=1e-5)


def test_a_flip_by_one_is_the_mirror_image_bit_for_bit() -> None:
    attack = Stretch(-1.0)
    assert torch.equal(attack.adapters(START, TRAINED, drawn()), START - (TRAINED - START))
    assert torch.equal(attack.returned(attack.gradient(G2, drawn())), G2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noise_has_the_norm_of_honesty_and_nothing_of_its_direction(dtype: torch.dtype) -> None:
    wide = values(6, 200, 50)
    for sent, true in [
        (Noise(3.0).adapters(torch.zeros_like(wide), wide, drawn()), wide),
        (Noise(3.0).gradient(wide.to(dtype), drawn()), wide),
    ]:
        assert sent.float().norm() == pytest.approx(3 * float(true.norm()), rel=1e-3)
        assert abs(torch.cosine_similarity(sent.float().ravel(), true.ravel(), dim=0)) < 0.05
    assert Noise(3.0).gradient(wide.to(dtype), drawn()).dtype == dtype


def test_noise_follows_from_the_generator_alone() -> None:
    one, again, other = (Noise(1.0).adapters(START, TRAINED, drawn(it)) for it in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_free_rider_sends_what_it_got_and_no_gradient() -> None:
    assert torch.equal(FreeRide(0.0).adapters(START, TRAINED, drawn()), START)
    assert torch.equal(FreeRide(0.5).gradient(G2, drawn()), torch.zeros_like(G2))


def test_a_free_riders_noise_is_small_beside_what_it_got_and_zero_stays_zero() -> None:
    sent = FreeRide(0.1).adapters(START, TRAINED, drawn())
    assert (sent - START).norm() == pytest.approx(0.1 * float(START.norm()), rel=1e-5)
    nothing = torch.zeros(3, 3)
    assert torch.equal(FreeRide(0.1).adapters(nothing, TRAINED[:3, :3], drawn()), nothing)

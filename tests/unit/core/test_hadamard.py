"""The rotation: orthogonal, its own inverse, flat, and a function of the seed alone."""

import pytest
import torch

from elsa.core.codec import Frame
from elsa.core.hadamard import Rotate, mix, random_signs

SIZES = [1, 2, 3, 7, 9, 24, 64, 128, 384, 576, 768, 960, 257, 2048]
FRAME = Frame((4,), 3)


@pytest.mark.parametrize("hidden", SIZES)
def test_mixing_is_orthogonal_symmetric_and_its_own_inverse(hidden: int) -> None:
    matrix = mix(torch.eye(hidden))
    assert torch.allclose(matrix, matrix.T, atol=1e-6)
    assert torch.allclose(matrix @ matrix.T, torch.eye(hidden), atol=1e-5)


@pytest.mark.parametrize("hidden", SIZES)
def test_one_value_is_spread_over_all(hidden: int) -> None:
    # Flat: no value of the rotated token holds more than its share, so no outlier survives.
    assert float(mix(torch.eye(hidden)).abs().max()) <= (2 / hidden) ** 0.5 + 1e-6


@pytest.mark.parametrize("hidden", SIZES)
def test_inverse_norms_and_adjoint(hidden: int) -> None:
    first, second = torch.randn(2, 4, hidden, generator=torch.Generator().manual_seed(0))
    turned, side = Rotate().forward(first, FRAME)
    assert torch.allclose(turned.norm(dim=1), first.norm(dim=1), rtol=1e-5)
    assert float((Rotate().inverse(turned, side, hidden, FRAME) - first).norm()) <= 1e-6 * float(
        first.norm()
    )
    back = Rotate().inverse(second, side, hidden, FRAME)
    assert float((turned * second).sum()) == pytest.approx(float((first * back).sum()), abs=1e-3)


def test_signs_by_hand() -> None:
    # D = 2: R = [[1, 1], [1, -1]] / sqrt 2.
    signs = random_signs(3, 2)
    turned, _ = Rotate().forward(torch.tensor([[3.0, 1.0]]), Frame((1,), 3))
    first, second = 3 * float(signs[0]), float(signs[1])
    wanted = torch.tensor([[first + second, first - second]]) / 2**0.5
    assert torch.allclose(turned, wanted)


def test_signs_are_fair_and_follow_the_seed() -> None:
    signs = random_signs(5, 10_000)
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.05
    assert signs.tolist() == random_signs(5, 10_000).tolist()
    assert signs.tolist() != random_signs(6, 10_000).tolist()


def test_outliers_become_gaussian() -> None:
    values = torch.randn(64, 384, generator=torch.Generator().manual_seed(0))
    values[:, 7] *= 40
    turned, _ = Rotate().forward(values, Frame((64,), 1))
    spread = turned / turned.square().mean(1, keepdim=True).sqrt()
    assert float(spread.pow(4).mean()) < 4  # kurtosis: 3 for a Gaussian, hundreds before

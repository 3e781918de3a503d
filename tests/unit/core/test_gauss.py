import math

import numpy as np
import pytest
import torch

from elsa.core import gauss
from elsa.core.bits import pack


@pytest.mark.parametrize(
    ("bits", "left"), [(0, 1.0), (1, 0.3634), (2, 0.1175), (3, 0.03454), (4, 0.009497)]
)
def test_distortion_is_that_of_max_1960(bits: int, left: float) -> None:
    assert gauss.distortion(bits) == pytest.approx(left, rel=1e-3)


def test_one_bit_is_the_mean_of_half_a_normal_distribution() -> None:
    assert gauss.levels(1) == pytest.approx([-math.sqrt(2 / math.pi), math.sqrt(2 / math.pi)])


@pytest.mark.parametrize("bits", gauss.BITS)
def test_normal_values_lose_what_is_stated(bits: int) -> None:
    values = torch.randn(64, 1024, generator=torch.Generator().manual_seed(bits)) * 3
    codes = gauss.encode(values, torch.full((64,), 1 / 3), bits)
    back = gauss.decode(pack(codes, bits), bits, values.numel()).reshape(values.shape) * 3
    left = np.square(back - values.numpy()).sum() / float(values.square().sum())
    assert left == pytest.approx(gauss.distortion(bits), rel=0.05)

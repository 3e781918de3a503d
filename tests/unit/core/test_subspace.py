"""Subspace coding: what lies on the directions is exact, and both ends must hold the same ones."""

import pytest
import torch

from elsa.core.cast import Cast
from elsa.core.codec import Frame
from elsa.core.quantize import Quantize
from elsa.core.subspace import SubspaceCoder
from elsa.errors import CodecError, ConfigError

FRAME = Frame((6,))


def directions(seed: int, rank: int = 4) -> torch.Tensor:
    noise = torch.randn(32, rank, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(noise)[0]


def coder(seed: int = 0) -> SubspaceCoder:
    return SubspaceCoder(directions(seed), Cast("float32"), Quantize(2))


def test_values_on_the_directions_are_exact() -> None:
    inside = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)) @ directions(0).T
    got = coder().decode(coder().encode(inside, FRAME), FRAME)
    assert torch.allclose(got, inside, atol=1e-5)


def test_remainder_makes_up_for_coarse_coordinates() -> None:
    values = torch.randn(6, 32, generator=torch.Generator().manual_seed(1))
    coarse = SubspaceCoder(directions(0), Quantize(2), Cast("float32"))
    got = coarse.decode(coarse.encode(values, FRAME), FRAME)
    assert torch.allclose(got, values, atol=1e-5)


def test_large_directions_leave_a_smaller_error() -> None:
    values = torch.randn(6, 32, generator=torch.Generator().manual_seed(1))
    values += 50 * torch.randn(6, 4, generator=torch.Generator().manual_seed(2)) @ directions(0).T
    plain = Quantize(2).decode(Quantize(2).encode(values, FRAME), FRAME)
    got = coder().decode(coder().encode(values, FRAME), FRAME)
    assert float((got - values).norm()) < 0.1 * float((plain - values).norm())


def test_other_directions_are_noticed() -> None:
    packet = coder(0).encode(torch.ones(6, 32), FRAME)
    with pytest.raises(CodecError, match="was agreed on"):
        coder(1).decode(packet, FRAME)


@pytest.mark.parametrize(
    "odd", [torch.ones(32, 4), torch.eye(4)[:, :0], torch.zeros(32), torch.ones(3, 4) / 2]
)
def test_impossible_directions_are_refused(odd: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="directions"):
        SubspaceCoder(odd, Cast("float32"), Quantize(2))


def test_another_hidden_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="for hidden size 32, not 48"):
        coder().size(6, 48)

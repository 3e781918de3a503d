"""Bands of known axes: an orthogonal turn, the same on any machine."""

import pytest
import torch
from torch import Tensor

from elsa.core.bands import Bands
from elsa.errors import ConfigError

HIDDEN = 96


def orthonormal(seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(HIDDEN, HIDDEN, generator=draw))[0]


@pytest.mark.parametrize("product", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [0, 1, 32, 33])
@pytest.mark.parametrize("width", [1, 24, 96])
def test_turning_keeps_norms_and_is_undone(product: torch.dtype, tokens: int, width: int) -> None:
    values = torch.randn(tokens, HIDDEN, generator=torch.Generator().manual_seed(1))
    bands = Bands(orthonormal(), width, product)
    turned = bands.turn(values)
    allowed = 0.01 * values.norm(dim=1)  # what bfloat16 rounds
    assert (turned.norm(dim=1) - values.norm(dim=1)).abs().le(allowed).all()
    assert (bands.turn_back(turned) - values).norm(dim=1).le(allowed).all()


def test_a_band_holds_what_lies_on_its_axes() -> None:
    axes = orthonormal()
    values = torch.randn(5, 24, generator=torch.Generator().manual_seed(1)) @ axes[:, 24:48].T
    energies = Bands(axes, 24).turn(values).view(5, 4, 24).square().sum((0, 2))
    assert energies[1] > 0.999 * energies.sum()


def test_energy_of_one_axis_is_spread_over_its_band() -> None:
    # Few bits need values that are near Gaussian, not one large among zeros.
    axes = orthonormal()
    band = Bands(axes, 32).turn(axes[:, :1].T)[0, :32]
    assert band.abs().max() < 2 * 32**-0.5


def test_name_is_of_axes_and_width_alone() -> None:
    # How an end multiplies is its own business; what it multiplies with is not.
    axes = orthonormal()
    assert Bands(axes, 24).name == Bands(axes, 24, torch.bfloat16).name
    names = {Bands(axes, 24).name, Bands(axes, 48).name, Bands(orthonormal(1), 24).name}
    assert len(names) == 3


@pytest.mark.parametrize(
    ("shape", "width", "why"),
    [
        ((96, 96), 36, "bands of 36 do not divide"),
        ((96, 96), 0, "bands of 0"),
        ((96, 8), 8, "square"),
    ],
)
def test_impossible_bands_are_refused(shape: tuple[int, int], width: int, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Bands(torch.zeros(shape), width)

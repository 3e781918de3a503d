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


@pytest.mark.parametrize("tokens", [0, 1, 33])
@pytest.mark.parametrize("count", [1, 3, 24, 40, 95, 96])
@pytest.mark.parametrize("axes", [orthonormal(), torch.eye(HIDDEN), -torch.eye(HIDDEN).flip(1)])
def test_turning_keeps_norms_and_is_undone(axes: Tensor, tokens: int, count: int) -> None:
    values = torch.randn(tokens, HIDDEN, generator=torch.Generator().manual_seed(1))
    given, bands = values.clone(), Bands(axes[:, :count])
    turned = bands.turn(values)
    torch.testing.assert_close(turned.norm(dim=1), values.norm(dim=1))
    torch.testing.assert_close(bands.turn_back(turned), values, atol=1e-5, rtol=0)
    assert torch.equal(values, given)


@pytest.mark.parametrize(("count", "widths"), [(24, (6, 18, 72)), (3, (3, 93)), (96, (24, 72))])
def test_bands_are_a_quarter_of_the_axes_the_others_and_the_rest(
    count: int, widths: tuple[int, ...]
) -> None:
    assert Bands(orthonormal()[:, :count]).cells.widths == widths


def test_a_band_holds_what_lies_on_its_axes() -> None:
    axes = orthonormal()
    draw = torch.Generator().manual_seed(1)
    for band, (begin, end) in enumerate(((0, 6), (6, 24), (24, 96))):
        values = torch.randn(5, end - begin, generator=draw) @ axes[:, begin:end].T
        pieces = Bands(axes[:, :24]).turn(values).split((6, 18, 72), 1)
        energies = [float(piece.square().sum()) for piece in pieces]
        assert energies[band] > 0.9999 * sum(energies)


def test_energy_of_one_axis_is_spread_over_its_band() -> None:
    # Few bits need values that are near Gaussian, not one large among zeros.
    axes = orthonormal()
    band = Bands(axes[:, :64]).turn(axes[:, 20:21].T)[0, 16:64]
    assert band.abs().max() < 2 * 48**-0.5


def test_name_is_of_the_axes() -> None:
    axes = orthonormal()
    names = {Bands(it).name for it in (axes[:, :24], axes[:, :48], orthonormal(1)[:, :24])}
    assert len(names) == 3
    assert Bands(axes[:, :24]).name == Bands(axes[:, :24].clone()).name


@pytest.mark.parametrize(
    ("axes", "why"),
    [
        (torch.eye(96)[:, :0], "0 axes"),
        (torch.eye(96)[:8], "96 axes; allowed: 1 to the hidden size, 8"),
        (2 * torch.eye(96), "not orthonormal"),
        (torch.full((96, 2), float("nan")), "not orthonormal"),
    ],
)
def test_impossible_axes_are_refused(axes: Tensor, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Bands(axes)

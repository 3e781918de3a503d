"""Quantisation: levels and bytes by hand, its error against theory, no bias where none may be."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elsa.core.codec import Frame, Packet
from elsa.core.quantize import Quantize
from elsa.errors import CodecError, ConfigError


def coded(coder: Quantize, values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    frame = Frame((len(values),), seed)
    return coder.decode(coder.encode(values, frame), frame)


def test_two_bits_by_hand() -> None:
    # Scale 3; levels -3, -1, 1, 3; codes 3, 1, 2, 0 -> 0b00_10_01_11; 3 in bfloat16 is 0x4040.
    values = torch.tensor([[3.0, -0.9, 0.1, -2.5]])
    packet = Quantize(2).encode(values, Frame((1,)))
    assert packet == Packet(
        "quantize:2:token:uniform:nearest", "float32", (1, 4), bytes([0x40, 0x40, 0b00100111])
    )
    assert Quantize(2).decode(packet, Frame((1,))).tolist() == [[3.0, -1.0, 1.0, -3.0]]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@settings(deadline=None)
@given(values=st.lists(st.floats(-1e5, 1e5, width=32), min_size=1, max_size=20))
def test_nearest_is_within_half_a_step(bits: int, values: list[float]) -> None:
    tensor = torch.tensor([values])
    largest = float(tensor.abs().max()) * (1 + 2**-7)  # the scale is rounded up to bfloat16
    error = float((coded(Quantize(bits), tensor) - tensor).abs().max())
    assert error <= largest / (2**bits - 1) * (1 + 1e-4) + 1e-30


@pytest.mark.parametrize(("bits", "squared"), [(2, 0.1175), (3, 0.03454), (4, 0.009497)])
def test_gauss_levels_reach_the_known_optimum(bits: int, squared: float) -> None:
    # Max (1960), table I. A scale of another size must make no difference.
    values = torch.randn(2000, 128, generator=torch.Generator().manual_seed(0)) * 1e-4
    got = coded(Quantize(bits, levels="gauss"), values)
    error = (got - values).square().mean() / values.square().mean()
    assert float(error) == pytest.approx(squared, rel=0.02)
    uniform = coded(Quantize(bits), values)
    assert float((uniform - values).square().mean()) > 1.2 * float((got - values).square().mean())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_stochastic_rounding_has_no_bias(bits: int) -> None:
    values = torch.linspace(-1, 1, 41)[None]
    draws = 1000
    total = sum(coded(Quantize(bits, rounding="stochastic"), values, seed) for seed in range(draws))
    step = 2 / (2**bits - 1)
    # Each value's mean has a deviation of at most step / 2 / sqrt(draws).
    assert float((total / draws - values).abs().max()) < 4.5 * step / 2 / math.sqrt(draws) + 1e-6


def test_stochastic_errors_of_neighbours_are_independent() -> None:
    values = torch.full((1, 4000), 0.1)
    values[0, 0] = 1
    up = (coded(Quantize(2, rounding="stochastic"), values) > 0.1).float()[0, 1:]
    assert abs(float(torch.corrcoef(torch.stack([up[1:], up[:-1]]))[0, 1])) < 0.06


@pytest.mark.parametrize("levels", ["uniform", "gauss"])
def test_blocks_are_apart(levels: str) -> None:
    # An outlier spoils its own block only.
    values = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    spoiled = values.clone()
    spoiled[1, 3] = 1e4
    coder = Quantize(4, block=8, levels=levels)  # type: ignore[arg-type]
    same = coded(coder, values) == coded(coder, spoiled)
    assert same[0].all() and same[2].all() and same[1, 8:].all()


def test_no_scale_is_rounded_below_its_values() -> None:
    # 1.0035 is nearest to 1 in bfloat16; with that scale it could not be reached, on no seed.
    values, draws = torch.tensor([[1.0035, -1.0035]]), 400
    coder = Quantize(8, rounding="stochastic")
    mean = sum(coded(coder, values, seed) for seed in range(draws)) / draws
    assert float((mean - values).abs().max()) < 1e-3


@pytest.mark.parametrize("tiny", [1e-38, 1e-45])
def test_tiny_gradients_do_no_harm(tiny: float) -> None:
    for levels in ("uniform", "gauss"):
        got = coded(Quantize(4, levels=levels), torch.full((2, 8), tiny))  # type: ignore[arg-type]
        assert float(got.abs().max()) <= 1e-30


@pytest.mark.parametrize("scale", [b"\xc0\x7f", b"\x80\x7f", b"\x80\xbf", b"\x7f\x7f"])
def test_odd_scales_are_refused(scale: bytes) -> None:
    # NaN, infinity, -1, and one so large that levels overflow.
    packet = Packet(Quantize(8).name, "float32", (1, 2), scale + b"ab")
    with pytest.raises(CodecError, match="a scale is NaN, negative or beyond"):
        Quantize(8).decode(packet, Frame((1,)))


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"bits": 5}, "bits = 5; allowed: 2, 3, 4, 8"),
        ({"bits": 4, "block": -1}, "block = -1"),
        ({"bits": 4, "levels": "log"}, "levels = 'log'"),
        ({"bits": 4, "rounding": "up"}, "rounding = 'up'"),
        ({"bits": 8, "levels": "gauss"}, "take uniform at 8"),
        ({"bits": 4, "levels": "gauss", "rounding": "stochastic"}, "cannot be unbiased"),
    ],
)
def test_impossible_settings_are_refused(settings_: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Quantize(**settings_)  # type: ignore[arg-type]


def test_blocks_that_do_not_fill_a_token_are_refused() -> None:
    with pytest.raises(ConfigError, match="block = 7 does not divide hidden size 24"):
        Quantize(4, block=7).size(1, 24)

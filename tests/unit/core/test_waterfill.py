"""Water-filling: no more bits than the error asks for, and the error is what was asked for."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core import gauss
from elsa.core.bands import Bands
from elsa.core.codec import Frame
from elsa.core.waterfill import WaterFill
from elsa.errors import CodecError, ConfigError

HIDDEN = 384
NOTHING = torch.empty(0, HIDDEN)


def tokens(norms: list[float], seed: int = 0) -> Tensor:
    noise = torch.randn(len(norms), HIDDEN, generator=torch.Generator().manual_seed(seed))
    return noise / noise.norm(dim=1, keepdim=True) * torch.tensor(norms)[:, None]


def fewest_bits(energies: np.ndarray, error: float) -> np.ndarray:
    filled = WaterFill(error).fill(torch.from_numpy(energies), float(energies.sum()), HIDDEN)
    return filled.bits[: len(energies)].numpy()


def left_out(energies: np.ndarray, bits: tuple[int, ...]) -> float:
    return sum(gauss.distortion(b) * e for b, e in zip(bits, energies, strict=True))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=4, unique=True),
    st.floats(0.1, 0.95),
)
def test_no_other_bits_do_with_fewer(energies: list[float], error: float) -> None:
    known = np.array(energies)
    allowed = error**2 * known.sum()
    found = fewest_bits(known, error)
    assert left_out(known, tuple(found)) <= allowed * (1 + 1e-9)
    fitting = [
        sum(bits)
        for bits in itertools.product(range(5), repeat=len(known))
        if left_out(known, bits) <= allowed
    ]
    # Greedy steps of unequal gain may overshoot by the last one; never by more.
    assert min(fitting) <= found.sum() <= min(fitting) + 1


@pytest.mark.parametrize("error", [0.1, 0.2, 0.3, 0.5, 0.8])
def test_error_is_what_was_asked_for(error: float) -> None:
    values = tokens([1.0 + 0.1 * n for n in range(100)])
    coder, frame = WaterFill(error), Frame((100,), 5)
    back = coder.decode(coder.encode(values, frame), frame)
    assert float((back - values).norm() / values.norm()) == pytest.approx(error, rel=0.05)


def test_a_few_large_tokens_take_all_the_bits() -> None:
    values = tokens([1.0] * 4 + [0.01] * 96)
    coder, frame = WaterFill(0.3), Frame((100,), 5)
    packet = coder.encode(values, frame)
    assert len(packet.payload) <= 8 + 25 + 13 + 4 + 4 * HIDDEN * 3 // 8
    back = coder.decode(packet, frame)
    assert not back[4:].any()
    assert float((back - values).norm() / values.norm()) <= 0.35


def test_equal_tokens_get_equal_bits_but_for_the_last() -> None:
    assert set(fewest_bits(np.ones(50), 0.2).tolist()) == {3}


def test_error_may_be_a_part_of_something_larger() -> None:
    values, frame = tokens([1.0] * 10), Frame((10,), 5)
    coder = WaterFill(0.2)
    none, some = (
        coder.fill(torch.linspace(0.9, 1.1, 10).double(), energy, HIDDEN)
        for energy in (10 / 0.04, 20)
    )
    assert len(coder.write(none, values, NOTHING, frame)) == 8 + 3 + 2  # nothing needed
    sizes = [
        len(coder.write(some, values, NOTHING, frame)),
        len(coder.encode(values, frame).payload),
    ]
    assert 13 < sizes[0] < sizes[1]


@pytest.mark.parametrize("odd", [float("inf"), float("nan")])
def test_infinite_energy_is_refused_not_dropped(odd: float) -> None:
    values = tokens([1.0, 1.0])
    values[0, 3] = odd
    with pytest.raises(CodecError, match="not finite"):
        WaterFill(0.2).encode(values, Frame((2,), 5))


def test_values_beyond_what_a_scale_can_say_are_refused() -> None:
    with pytest.raises(CodecError, match=r"beyond 1e\+30"):
        WaterFill(0.2).encode(tokens([1e33]), Frame((1,), 5))


def test_token_of_more_bits_than_there_are_is_refused() -> None:
    coder, frame = WaterFill(0.2), Frame((1,), 5)
    packet = coder.encode(tokens([1.0]), frame)
    broken = packet.payload[:8] + b"\x03\x01" + packet.payload[10:]
    with pytest.raises(CodecError, match="7 bits; allowed: 0 to 4"):
        coder.decode(type(packet)(packet.codec, packet.dtype, packet.shape, broken), frame)


def concentrated(tokens: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Values [T, D] that vary in few directions, and the axes [D, D] by falling variance."""
    draw = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(HIDDEN, HIDDEN, generator=draw))[0]
    spread = torch.exp(-torch.arange(HIDDEN) / 60)
    return torch.randn(tokens, HIDDEN, generator=draw) * spread @ axes.T, axes


def test_axes_and_bands_save_bits_at_the_same_error() -> None:
    values, axes = concentrated(200)
    sizes = []
    for coder in (WaterFill(0.2), WaterFill(0.2, Bands(axes[:, :96]))):
        packet = coder.encode(values, Frame((200,), 5))
        back = coder.decode(packet, Frame((200,), 5))
        assert float((back - values).norm() / values.norm()) == pytest.approx(0.2, rel=0.08)
        sizes.append(len(packet.payload))
    assert sizes[1] < 0.7 * sizes[0]


def test_what_is_sent_is_what_both_ends_hold() -> None:
    # An encoder that remembers what it did not send would drift from its peer.
    values, axes = concentrated(50)
    for coder in (WaterFill(0.2), WaterFill(0.2, Bands(axes[:, :96]))):
        frame = Frame((50,), 5)
        turned, ours = coder.turn(values), torch.ones(50, HIDDEN)
        energies = (turned - ours).square().split(list(coder.cells(HIDDEN).widths), 1)
        held = torch.stack([it.sum(1) for it in energies], 1).view(-1).double()
        filled = coder.fill(held, float(held.sum()), HIDDEN)
        payload = coder.write(filled, turned, ours, frame, b"before")
        received = coder.read(payload, *values.shape, frame, len(b"before"))
        theirs = coder.expand(received, torch.ones(50, HIDDEN), frame)
        assert torch.equal(ours, theirs)
        assert float((ours - turned).square().sum()) < 1.5 * 0.2**2 * held.sum()


def test_bands_that_were_not_sent_are_left_as_they_were() -> None:
    values, axes = concentrated(50)
    coder, frame = WaterFill(0.5, Bands(axes[:, :96])), Frame((50,), 5)
    packet = coder.encode(values, frame)
    received = coder.read(packet.payload, 50, HIDDEN, frame)
    found = coder.expand(received, torch.full((50, HIDDEN), 7.0), frame)
    dropped = (received.bits[:150] == 0).view(50, 3)
    assert 0 < int(dropped.sum()) < dropped.numel()
    for band, piece in enumerate(found.split(list(coder.cells(HIDDEN).widths), 1)):
        assert (piece[dropped[:, band]] == 7).all()
        assert (piece[~dropped[:, band]] != 7).any(1).all()


@pytest.mark.parametrize("bands", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1.0])
@pytest.mark.parametrize("hidden", [96, 384, 576, 896])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_any_shape_goes_there_and_back(bands: bool, scale: float, hidden: int, count: int) -> None:
    coder = WaterFill(0.3, Bands(torch.eye(hidden)[:, :50])) if bands else WaterFill(0.3)
    draw, frame = torch.Generator().manual_seed(1), Frame((count,), 5)
    values = scale * torch.randn(count, hidden, generator=draw)
    back = coder.decode(coder.encode(values, frame), frame)
    assert back.shape == values.shape
    assert float((back - values).norm()) <= 0.36 * float(values.norm())


def test_axes_are_part_of_the_name() -> None:
    axes = [concentrated(1, seed)[1] for seed in (0, 1)]
    coders = [WaterFill(0.2, Bands(it[:, :96])) for it in axes]
    assert len({it.name for it in (*coders, WaterFill(0.2))}) == 3


def test_hidden_size_of_other_axes_is_refused() -> None:
    with pytest.raises(ConfigError, match="axes of 64 dimensions for hidden size 384"):
        WaterFill(0.2, Bands(torch.eye(64))).check(HIDDEN)


@pytest.mark.parametrize("error", [0.05, 1.0, -1.0, float("nan")])
def test_impossible_error_is_refused(error: float) -> None:
    with pytest.raises(ConfigError, match=r"allowed: 0\.1 to below 1"):
        WaterFill(error)

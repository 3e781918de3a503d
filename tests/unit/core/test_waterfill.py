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
from elsa.core.waterfill import WaterFill, fewest_bits
from elsa.errors import CodecError, ConfigError

HIDDEN = 384


def tokens(norms: list[float], seed: int = 0) -> Tensor:
    noise = torch.randn(len(norms), HIDDEN, generator=torch.Generator().manual_seed(seed))
    return noise / noise.norm(dim=1, keepdim=True) * torch.tensor(norms)[:, None]


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
    found = fewest_bits(known, allowed)
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
    assert len(packet.payload) <= 8 + 38 + 4 + 4 * HIDDEN * 3 // 8
    back = coder.decode(packet, frame)
    assert not back[4:].any()
    assert float((back - values).norm() / values.norm()) <= 0.35


def test_equal_tokens_get_equal_bits_but_for_the_last() -> None:
    assert set(fewest_bits(np.ones(50), 0.2**2 * 50).tolist()) == {3}


def test_error_may_be_a_part_of_something_larger() -> None:
    values, frame = tokens([1.0] * 10), Frame((10,), 5)
    coder = WaterFill(0.2)
    held = coder.energies(values)
    none, some = (coder.fill(values, held, energy, frame) for energy in (10 / 0.04, 20))
    assert len(coder.write(none, values, frame)) == 8 + 4  # nothing needed
    assert 12 < len(coder.write(some, values, frame)) < len(coder.encode(values, frame).payload)


def test_infinite_energy_is_refused_not_dropped() -> None:
    values = tokens([1.0, 1.0])
    values[0, 3] = float("inf")
    with pytest.raises(CodecError, match="not finite"):
        WaterFill(0.2).energies(values)


def test_token_of_more_bits_than_there_are_is_refused() -> None:
    coder, frame = WaterFill(0.2), Frame((1,), 5)
    packet = coder.encode(tokens([1.0]), frame)
    broken = packet.payload[:8] + b"\x07" + packet.payload[9:]
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
    for coder in (WaterFill(0.2), WaterFill(0.2, Bands(axes, 64))):
        packet = coder.encode(values, Frame((200,), 5))
        back = coder.decode(packet, Frame((200,), 5))
        assert float((back - values).norm() / values.norm()) == pytest.approx(0.2, rel=0.08)
        sizes.append(len(packet.payload))
    assert sizes[1] < 0.6 * sizes[0]


def test_what_is_sent_is_what_both_ends_hold() -> None:
    # An encoder that remembers what it did not send would drift from its peer.
    values, axes = concentrated(50)
    for coder in (WaterFill(0.2), WaterFill(0.2, Bands(axes, 64))):
        frame = Frame((50,), 5)
        turned = coder.turn(values)
        filled = coder.fill(turned, coder.energies(turned), 100.0, frame)
        read = coder.read(coder.write(filled, turned, frame), *values.shape, frame)
        ours, theirs = (coder.expand(it, torch.ones(50, HIDDEN), frame) for it in (filled, read))
        assert torch.equal(ours, theirs)


def test_bands_that_were_not_sent_are_left_as_they_were() -> None:
    values, axes = concentrated(50)
    coder, frame = WaterFill(0.5, Bands(axes, 64)), Frame((50,), 5)
    turned = coder.turn(values)
    filled = coder.fill(turned, coder.energies(turned), float(turned.square().sum()), frame)
    into = torch.full((50, HIDDEN), 7.0)
    found = coder.expand(filled, into, frame).view(-1, 64)
    dropped = torch.from_numpy(filled.bits == 0)
    assert 0 < int(dropped.sum()) < len(found)
    assert (found[dropped] == 7).all()
    assert (found[~dropped] != 7).any(1).all()


def test_axes_are_part_of_the_name() -> None:
    axes = [concentrated(1, seed)[1] for seed in (0, 1)]
    coders = [WaterFill(0.2, Bands(it, 64)) for it in axes]
    assert len({it.name for it in (*coders, WaterFill(0.2))}) == 3


def test_hidden_size_of_other_axes_is_refused() -> None:
    with pytest.raises(ConfigError, match="axes of 64 dimensions for hidden size 384"):
        WaterFill(0.2, Bands(torch.eye(64), 16)).check(HIDDEN)


@pytest.mark.parametrize("error", [0.05, 1.0, -1.0, float("nan")])
def test_impossible_error_is_refused(error: float) -> None:
    with pytest.raises(ConfigError, match=r"allowed: 0\.1 to below 1"):
        WaterFill(error)

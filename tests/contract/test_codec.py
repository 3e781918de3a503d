"""The laws that every codec keeps, whatever it is made of."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elsa.core.bands import Bands
from elsa.core.cast import Cast
from elsa.core.chain import Chain
from elsa.core.codec import Codec, Coder, Frame, Identity, all_finite
from elsa.core.feedback import ErrorFeedback
from elsa.core.hadamard import Rotate
from elsa.core.quantize import Quantize
from elsa.core.sketch import Center, CountSketch
from elsa.core.sparse import TopK
from elsa.core.subspace import SubspaceCoder
from elsa.core.temporal import Temporal
from elsa.core.waterfill import WaterFill
from elsa.errors import CodecError
from elsa.wire.checks import check_name

HIDDEN = 24


def basis(seed: int = 0, rank: int = 3) -> Tensor:
    noise = torch.randn(HIDDEN, rank, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(noise)[0]


def rotated(bits: int, **others: object) -> Chain:
    return Chain((Rotate(),), Quantize(bits, **others))  # type: ignore[arg-type]


def coders() -> list[tuple[Coder, float, float]]:
    """Coder, stated bytes of T = 5 tokens of D = 24, bound of the error relative to the values."""
    five = 5 * HIDDEN
    return [
        (Cast("float32"), 4 * five, 0),
        (Cast("bfloat16"), 2 * five, 2**-8),
        (Quantize(8), 10 + five, 0.03),
        (Quantize(4), 10 + five / 2, 0.4),
        (Quantize(3), 10 + five * 3 / 8, 0.8),
        (Quantize(2), 10 + five / 4, 2),
        (Quantize(4, block=8), 3 * 10 + five / 2, 0.2),
        (Quantize(4, rounding="stochastic"), 10 + five / 2, 0.7),
        (Quantize(4, levels="gauss"), 10 + five / 2, 0.9),
        (rotated(4, levels="gauss"), 4 + 10 + five / 2, 0.9),
        (rotated(3, levels="gauss"), 4 + 10 + five * 3 / 8, 0.9),
        (rotated(2, levels="gauss"), 4 + 10 + five / 4, 0.9),
        (Chain((CountSketch(3, 4),), Cast("float32")), 4 + 5 * 12 * 4, 24),
        (Chain((CountSketch(2, 5),), Cast("bfloat16")), 4 + 5 * 10 * 2, 24),
        (Chain((Center("token"), CountSketch(3, 4)), Quantize(8)), 10 + 4 + 10 + 60, 24),
        (Chain((Center("batch"), CountSketch(1, 4)), Cast("float32")), 48 + 4 + 5 * 4 * 4, 24),
        (TopK(3), (5 * 3 * 5 + 7) // 8 + 5 * 3 * 2, 1),
        (TopK(24, Cast("float32")), five * 5 / 8 + five * 4, 0),
        (SubspaceCoder(basis(), Cast("bfloat16"), rotated(4)), 5 * 3 * 2 + 4 + 10 + five / 2, 0.4),
        (ErrorFeedback(TopK(3), 10**6), (5 * 3 * 5 + 7) // 8 + 5 * 3 * 2, 1),
    ]


CODERS = {coder.name: place for place, (coder, _, _) in enumerate(coders())}
CODECS = [*CODERS, "fill", "fill in bands", "temporal", "temporal in bands"]
"""By name; the last four have no size that follows from the shape."""


def make(name: str) -> Codec:
    fill = WaterFill(0.2, Bands(basis(rank=8))) if "bands" in name else WaterFill(0.2)
    if name.startswith("fill"):
        return fill
    if name.startswith("temporal"):
        return Temporal(fill, 10**6)
    return coders()[CODERS[name]][0]


@dataclass(frozen=True)
class Case:
    values: Tensor
    frame: Frame


@st.composite
def cases(draw: st.DrawFn) -> Case:
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    seed = draw(st.integers(0, 2**31))
    size = 10.0 ** draw(st.integers(-6, 6))
    noise = torch.Generator().manual_seed(seed)
    values = torch.randn(sum(lengths), HIDDEN, generator=noise) * size
    values[:, 5] *= draw(st.sampled_from([1, 30]))  # an outlier dimension
    values[0] *= draw(st.sampled_from([0, 1]))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    return Case(values.to(dtype), Frame(lengths, seed, range(len(lengths))))


LENGTHS = (2, 3)
FRAME = Frame(LENGTHS, 7, (10, 11))
VALUES = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(1))


def relative(got: Tensor, wanted: Tensor) -> float:
    norm = float(wanted.double().norm())
    return float((got.double() - wanted.double()).norm()) / norm if norm else float(got.norm())


@pytest.mark.parametrize("name", CODECS)
@settings(deadline=None, max_examples=25)
@given(case=cases())
def test_shape_and_dtype_come_back(name: str, case: Case) -> None:
    packet = make(name).encode(case.values, case.frame)
    back = make(name).decode(packet, case.frame)
    assert (back.shape, back.dtype) == (case.values.shape, case.values.dtype)
    assert bool(torch.isfinite(back).all())


@pytest.mark.parametrize("name", CODECS)
@settings(deadline=None, max_examples=10)
@given(case=cases())
def test_same_seed_same_bytes_and_values_untouched(name: str, case: Case) -> None:
    before = case.values.clone()
    torch.manual_seed(0)
    first = make(name).encode(case.values, case.frame)
    torch.manual_seed(1)  # the global generator must have no say
    assert make(name).encode(case.values, case.frame) == first
    assert torch.equal(case.values, before)


@pytest.mark.parametrize("name", CODECS)
@settings(deadline=None, max_examples=25)
@given(case=cases())
def test_error_is_bounded(name: str, case: Case) -> None:
    bound = coders()[CODERS[name]][2] if name in CODERS else 0.9
    back = make(name).decode(make(name).encode(case.values, case.frame), case.frame)
    slack = 2**-7 if case.values.dtype is torch.bfloat16 else 1e-5
    assert relative(back, case.values) <= bound + slack * (1 + bound)


@pytest.mark.parametrize("name", CODERS)
def test_payload_is_as_long_as_stated(name: str) -> None:
    coder, stated, _ = coders()[CODERS[name]]
    assert len(coder.encode(VALUES, FRAME).payload) == coder.size(5, HIDDEN) == stated


@pytest.mark.parametrize("name", CODERS)
@settings(deadline=None, max_examples=10)
@given(case=cases())
def test_payload_is_as_long_as_computed(name: str, case: Case) -> None:
    payload = make(name).encode(case.values, case.frame).payload
    coder = make(name)
    assert len(payload) == coder.size(*case.values.shape)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CODECS)
def test_zeros_stay_zeros(name: str) -> None:
    zeros = torch.zeros(5, HIDDEN)
    assert torch.equal(make(name).decode(make(name).encode(zeros, FRAME), FRAME), zeros)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_not_sent(name: str, odd: float) -> None:
    values = VALUES.clone()
    values[3, 4] = odd
    with pytest.raises(CodecError):
        make(name).encode(values, FRAME)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(
    "values", [VALUES.double(), VALUES.int(), VALUES[:4], VALUES[None], VALUES[:, 0]]
)
def test_other_tensors_are_not_sent(name: str, values: Tensor) -> None:
    with pytest.raises(CodecError, match="allowed"):
        make(name).encode(values, FRAME)


@pytest.mark.parametrize("name", CODECS)
def test_packet_that_does_not_fit_is_refused(name: str) -> None:
    packet = make(name).encode(VALUES, FRAME)
    wrong = [
        replace(packet, codec="quantize:5"),
        replace(packet, codec=Identity.name),
        replace(packet, dtype="float99"),
        replace(packet, dtype="int8"),
        replace(packet, shape=(4, HIDDEN)),
        replace(packet, shape=(5, HIDDEN * 2)),
        replace(packet, shape=(HIDDEN, 5)),
        replace(packet, shape=(5 * HIDDEN,)),
        replace(packet, shape=(-5, -HIDDEN)),
        replace(packet, shape=(5, 0)),
        replace(packet, payload=b""),
        replace(packet, payload=packet.payload[:-1]),
        replace(packet, payload=packet.payload + b"\0"),
    ]
    for each in wrong:
        with pytest.raises(CodecError):
            make(name).decode(each, FRAME)
    with pytest.raises(CodecError):
        make(name).decode(packet, replace(FRAME, lengths=(2, 2)))


@pytest.mark.parametrize("name", CODECS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_bytes_are_decoded_to_finite_values_or_refused(name: str, data: st.DataObject) -> None:
    packet = make(name).encode(VALUES, FRAME)
    payload = bytearray(packet.payload)
    for _ in range(data.draw(st.integers(1, 8))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        back = make(name).decode(replace(packet, payload=bytes(payload)), FRAME)
    except CodecError:
        return
    assert back.shape == VALUES.shape
    if "sketch" not in name:  # its sums may overflow; the roles refuse what is not finite
        assert bool(torch.isfinite(back).all())


def test_every_name_is_of_one_codec_and_fit_for_the_wire() -> None:
    names = [coder.name for coder, _, _ in coders()] + [make(name).name for name in CODECS[-4:]]
    assert len(set(names)) == len(names)
    for name in names:
        check_name("codec", name)


@pytest.mark.parametrize("name", CODECS)
def test_gradients_are_not_asked_for(name: str) -> None:
    values = VALUES.clone().requires_grad_()
    assert not make(name).decode(make(name).encode(values, FRAME), FRAME).requires_grad


@pytest.mark.parametrize(
    "name",
    [name for name in CODECS if any(it in name for it in ("rotate", "sketch", "fill", "temporal"))],
)
def test_another_seed_is_noticed(name: str) -> None:
    packet = make(name).encode(VALUES, FRAME)
    with pytest.raises(CodecError, match="another seed"):
        make(name).decode(packet, replace(FRAME, seed=8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_one_odd_value_anywhere_is_found(dtype: torch.dtype, odd: float) -> None:
    for size in (1, 7, 33, 1000):
        for place in {0, size // 2, size - 1}:
            values = torch.full((size,), torch.finfo(dtype).max, dtype=dtype)
            values[::2] *= -1
            assert all_finite(values)
            values[place] = odd
            assert not all_finite(values)
    assert all_finite(torch.empty(0))

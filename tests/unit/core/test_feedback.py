"""Error feedback: what is left out now comes later."""

import pytest
import torch

from elsa.core.cast import Cast
from elsa.core.chain import Chain
from elsa.core.codec import Frame
from elsa.core.feedback import ErrorFeedback
from elsa.core.sketch import CountSketch
from elsa.core.sparse import TopK
from elsa.errors import CodecError

VALUES = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))


def frame(seed: int = 0, samples: tuple[int, ...] = (4, 7)) -> Frame:
    return Frame((3, 3), seed, samples)


def mean_error(coder: ErrorFeedback, steps: int) -> float:
    """Of the mean of what is decoded over repeats of the same values."""
    total = sum(coder.decode(coder.encode(VALUES, frame(it)), frame(it)) for it in range(steps))
    return float((total / steps - VALUES).norm() / VALUES.norm())


@pytest.mark.parametrize(
    "inner", [TopK(4), Chain((CountSketch(3, 6, 0.3),), Cast("float32"))], ids=["top", "sketch"]
)
def test_mean_over_repeats_tends_to_the_values(inner: TopK | Chain) -> None:
    errors = [mean_error(ErrorFeedback(inner, 10**6), steps) for steps in (1, 10, 80)]
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.15


def test_first_send_is_the_coder_s_own() -> None:
    packet = ErrorFeedback(TopK(4), 10**6).encode(VALUES, frame())
    assert packet.payload == TopK(4).encode(VALUES, frame()).payload
    assert packet.codec == "feedback+top:4+bfloat16"


def test_error_belongs_to_its_sample() -> None:
    coder = ErrorFeedback(TopK(4), 10**6)
    coder.encode(VALUES, frame(samples=(1, 2)))
    fresh = coder.encode(VALUES, frame(samples=(3, 4)))
    assert fresh.payload == TopK(4).encode(VALUES, frame()).payload
    assert coder.encode(VALUES, frame(samples=(1, 2))).payload != fresh.payload


def test_memory_survives_a_restart() -> None:
    coder, again = ErrorFeedback(TopK(4), 10**6), ErrorFeedback(TopK(4), 10**6)
    coder.encode(VALUES, frame())
    again.restore(coder.state())
    assert again.encode(VALUES, frame()) == coder.encode(VALUES, frame())


def test_sketch_of_the_paper_diverges_with_feedback() -> None:
    # Why `shrink` is there: an error above 1 is fed back and grows.
    coder = ErrorFeedback(Chain((CountSketch(3, 6),), Cast("float32")), 10**6)
    with pytest.raises(CodecError):
        mean_error(coder, 400)


def test_frame_must_number_all_its_samples_or_none() -> None:
    coder = ErrorFeedback(TopK(4), 10**6)
    with pytest.raises(CodecError, match="samples"):
        coder.encode(VALUES, Frame((3, 3), 0, (1,)))
    packets = [coder.encode(VALUES, Frame((3, 3))).payload for _ in range(2)]
    assert packets[0] == packets[1] == TopK(4).encode(VALUES, Frame((3, 3))).payload
    assert not len(coder.state()["samples"])


def test_only_its_own_packets_are_decoded() -> None:
    coder = ErrorFeedback(TopK(4), 10**6)
    with pytest.raises(CodecError, match=r"'feedback\+top:4\+bfloat16' was agreed on"):
        coder.decode(TopK(4).encode(VALUES, frame()), frame())

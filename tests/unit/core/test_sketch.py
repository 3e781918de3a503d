"""The count sketch: a case by hand, its adjoint, its bias and its variance; and centring."""

import pytest
import torch

from elsa.core.cast import Cast
from elsa.core.chain import Chain
from elsa.core.codec import Frame
from elsa.core.sketch import Center, CountSketch, _median
from elsa.errors import CodecError, ConfigError

FRAME = Frame((2,), 4)


def by_hand(sketch: CountSketch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows of two buckets over D = 4, drawn by hand."""
    buckets = torch.tensor([[0, 1, 0, 1], [2, 2, 3, 3], [5, 4, 4, 5]])
    signs = torch.tensor([[1.0, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]])
    monkeypatch.setattr(CountSketch, "draw", lambda *_: (buckets, signs))


def test_sketch_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = CountSketch(3, 2)
    by_hand(sketch, monkeypatch)
    values = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
    sums, side = sketch.forward(values, FRAME)
    # y = 0: 1 - 3, 2 + 5;  y = 1: 1 - 2, 3 + 5;  y = 2: 2 + 3, -1 + 5
    assert sums.tolist() == [[-2.0, 7.0, -1.0, 8.0, 5.0, 4.0]]
    estimates = [each[:, 0].tolist() for each in sketch.estimates(sums, 4, 0)]
    assert estimates == [[-2, 7, 2, 7], [-1, 1, 8, 8], [-4, 5, 5, 4]]
    assert sketch.inverse(sums, side, 4, FRAME).tolist() == [[-2.0, 5.0, 5.0, 7.0]]


def test_tokens_are_sketched_alike_and_apart() -> None:
    sketch = CountSketch(3, 5)
    values = torch.randn(2, 24, generator=torch.Generator().manual_seed(0))
    both, _ = sketch.forward(values, FRAME)
    for row in range(2):
        assert torch.allclose(sketch.forward(values[row : row + 1], FRAME)[0], both[row])


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
def test_sum_of_estimates_is_the_adjoint(rows: int) -> None:
    sketch, generator = CountSketch(rows, 5), torch.Generator().manual_seed(0)
    values = torch.randn(2, 24, generator=generator)
    other = torch.randn(2, rows * 5, generator=generator)
    sums, _ = sketch.forward(values, FRAME)
    adjoint = torch.stack(sketch.estimates(other, 24, FRAME.seed)).sum(0).T
    assert float((sums * other).sum()) == pytest.approx(float((values * adjoint).sum()), rel=1e-4)
    doubled, _ = sketch.forward(2 * values + 1, FRAME)
    ones, _ = sketch.forward(torch.ones(2, 24), FRAME)
    assert torch.allclose(doubled, 2 * sums + ones, atol=1e-5)


def test_no_bias_and_the_variance_of_theory() -> None:
    # One row: the mean over seeds is the value; the variance is (|x|^2 - x_d^2) / Z.
    sketch, values = CountSketch(1, 8), torch.linspace(-2, 2, 16)[None]
    draws = []
    for seed in range(4000):
        frame = Frame((1,), seed)
        sums, side = sketch.forward(values, frame)
        draws.append(sketch.inverse(sums, side, 16, frame))
    stacked = torch.stack(draws)
    theory = (values.square().sum() - values.square()) / 8
    assert float((stacked.mean(0) - values).abs().max()) < 4.5 * float((theory / 4000).sqrt().max())
    assert torch.allclose(stacked.var(0), theory, rtol=0.15)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7])
def test_median(count: int) -> None:
    values = torch.randn(count, 3, 40, generator=torch.Generator().manual_seed(count))
    assert torch.allclose(_median(list(values)), values.quantile(0.5, dim=0), atol=1e-6)


def test_hashes_cover_their_own_row() -> None:
    buckets, signs = CountSketch(3, 5).draw(0, 1000)
    for row in range(3):
        assert sorted(set(buckets[row].tolist())) == list(range(5 * row, 5 * row + 5))
    assert abs(float(signs.mean())) < 0.1
    assert not torch.equal(buckets[0], buckets[1] - 5)


def test_shrunk_sketch_errs_less_than_zeros_do() -> None:
    values = torch.randn(50, 96, generator=torch.Generator().manual_seed(0))
    frame = Frame((50,), 0)

    def error(shrink: float) -> float:
        coder = Chain((CountSketch(3, 16, shrink),), Cast("float32"))
        return float((coder.decode(coder.encode(values, frame), frame) - values).norm())

    assert error(0.35) < float(values.norm()) < error(1.0)


@pytest.mark.parametrize("over", ["token", "batch"])
def test_centring_takes_the_mean_out_and_puts_it_back(over: str) -> None:
    values = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)) + 10
    center = Center(over)  # type: ignore[arg-type]
    left, side = center.forward(values, Frame((6,)))
    assert float(left.mean(1 if over == "token" else 0).abs().max()) < 10 * 2**-8
    assert len(side) == center.side_size(6, 8) == (12 if over == "token" else 16)
    assert torch.allclose(center.inverse(left, side, 8, Frame((6,))), values, atol=1e-5)


def test_mean_that_is_not_finite_is_refused() -> None:
    with pytest.raises(CodecError, match="a mean is NaN"):
        Center("token").inverse(torch.zeros(1, 2), b"\xc0\x7f", 2, Frame((1,)))


@pytest.mark.parametrize(
    ("rows", "buckets", "shrink"), [(0, 4, 1), (3, 0, 1), (3, 4, 0), (3, 4, 2)]
)
def test_impossible_sketches_are_refused(rows: int, buckets: int, shrink: float) -> None:
    with pytest.raises(ConfigError, match="allowed"):
        CountSketch(rows, buckets, shrink)


def test_impossible_centre_is_refused() -> None:
    with pytest.raises(ConfigError, match="over = 'all'"):
        Center("all")  # type: ignore[arg-type]

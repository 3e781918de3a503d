"""The count sketch of ELSA (arXiv 2601.13824), after Charikar, Chen and Farach-Colton (2002).

    E(x)[y, z] = sum over {d : h_y(d) = z} of s_y(d) x_d
    decoded x_d = median over y of s_y(d) E(x)[y, h_y(d)]

h_y(d) in [0, Z) and s_y(d) in {-1, 1} are drawn from the frame's seed. Ratio = D / (Y Z) values.
E is linear; the sum over y of the estimates, before the median, is its adjoint. Each estimate is
unbiased over seeds, with variance up to |x|^2 / Z: at ratio 2 that is more than the value itself.

`Center` sends a mean along, so that what is sketched is smaller.

Shapes: T tokens, D hidden size, Y rows, Z buckets.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from elsa.core.codec import Frame, all_finite
from elsa.core.hadamard import TAG, check_seed, seed_tag
from elsa.errors import CodecError, ConfigError


@dataclass(frozen=True)
class CountSketch:
    """The sketch as a transform [T, D] -> [T, Y Z].

    Attributes:
        rows: Y.
        buckets: Z.
        shrink: what decoded values are multiplied with; 1 is the paper's. The factor of least
            squared error is 1 / (1 + e^2), e the relative error at 1; error feedback needs it,
            because it diverges where e >= 1.
    """

    rows: int
    buckets: int
    shrink: float = 1.0

    def __post_init__(self) -> None:
        if self.rows < 1 or self.buckets < 1:
            raise ConfigError(
                f"sketch: {self.rows} rows of {self.buckets} buckets; allowed: 1 or more of each"
            )
        if not 0 < self.shrink <= 1:
            raise ConfigError(f"sketch: shrink = {self.shrink}; allowed: above 0, up to 1")

    @property
    def name(self) -> str:
        """Name on the wire."""
        shrink = f":{self.shrink}" if self.shrink != 1 else ""
        return f"sketch:{self.rows}x{self.buckets}{shrink}"

    def width(self, hidden: int) -> int:  # noqa: ARG002
        """Y Z."""
        return self.rows * self.buckets

    def side_size(self, tokens: int, hidden: int) -> int:  # noqa: ARG002
        """Bytes of the seed's tag."""
        return TAG

    def forward(self, values: Tensor, frame: Frame) -> tuple[Tensor, bytes]:
        """Sketch [T, D]."""
        buckets, signs = self.draw(frame.seed, values.shape[1])
        sums = values.new_zeros(self.rows * self.buckets, len(values))
        columns = values.T.contiguous()
        for row in range(self.rows):
            sums.index_add_(0, buckets[row], columns * signs[row, :, None])
        return sums.T.contiguous(), seed_tag(frame.seed, values.shape[1])

    def inverse(self, values: Tensor, side: bytes, hidden: int, frame: Frame) -> Tensor:
        """Decode [T, Y Z]; raises CodecError where the sender drew from another seed."""
        check_seed(side, frame.seed, hidden, self.name)
        middle = _median(self.estimates(values, hidden, frame.seed))
        return middle.T.contiguous().mul_(self.shrink)

    def estimates(self, values: Tensor, hidden: int, seed: int) -> list[Tensor]:
        """s_y(d) E(x)[y, h_y(d)] for each row: Y tensors [D, T]."""
        buckets, signs = self.draw(seed, hidden)
        sums = values.T.contiguous()
        return [sums[buckets[row]].mul_(signs[row, :, None]) for row in range(self.rows)]

    def draw(self, seed: int, hidden: int) -> tuple[Tensor, Tensor]:
        """y Z + h_y(d) [Y, D], int64, and s_y(d) [Y, D], float32."""
        generator = torch.Generator().manual_seed(seed)
        shape = (self.rows, hidden)
        hashes = torch.randint(0, self.buckets, shape, generator=generator)
        signs = torch.randint(0, 2, shape, generator=generator).mul_(2).sub_(1).float()
        return hashes + torch.arange(self.rows)[:, None] * self.buckets, signs


def _median(values: list[Tensor]) -> Tensor:
    """Median over a short list, element by element; of an even number the mean of the middle two.

    Sorts by comparing neighbours, which on whole tensors beats a sort of each element's few values.
    """
    values = list(values)
    for end in range(len(values) - 1, 0, -1):
        for place in range(end):
            low, high = values[place], values[place + 1]
            values[place], values[place + 1] = torch.minimum(low, high), torch.maximum(low, high)
    middle = len(values) // 2
    if len(values) % 2:
        return values[middle]
    return (values[middle - 1] + values[middle]) / 2


@dataclass(frozen=True)
class Center:
    """Takes a mean out and sends it along in bfloat16; linear but for that rounding.

    Attributes:
        over: "token", the mean of a token's values, 2 T bytes; "batch", the mean token of the
            batch, 2 D bytes.
    """

    over: Literal["token", "batch"]

    def __post_init__(self) -> None:
        if self.over not in ("token", "batch"):
            raise ConfigError(f"center: over = '{self.over}'; allowed: token, batch")

    @property
    def name(self) -> str:
        """Name on the wire."""
        return f"center:{self.over}"

    def width(self, hidden: int) -> int:
        """As wide as it was."""
        return hidden

    def side_size(self, tokens: int, hidden: int) -> int:
        """Bytes of the means."""
        return 2 * (tokens if self.over == "token" else hidden)

    def forward(self, values: Tensor, frame: Frame) -> tuple[Tensor, bytes]:  # noqa: ARG002
        """Subtract the mean as it is sent, so that its rounding costs nothing."""
        means = values.mean(1 if self.over == "token" else 0, keepdim=True).bfloat16()
        side = means.view(-1).view(torch.uint8).numpy().tobytes()
        return values - means.float(), side

    def inverse(self, values: Tensor, side: bytes, hidden: int, frame: Frame) -> Tensor:  # noqa: ARG002
        """Add the mean; raises CodecError if it is not finite."""
        means = torch.frombuffer(bytearray(side), dtype=torch.bfloat16).float()
        if not all_finite(means):
            raise CodecError(f"{self.name}: a mean is NaN or infinity")
        return values + means.view((-1, 1) if self.over == "token" else (1, -1))

"""A local step's micro-batches at an edge server: which have come, and what they add up to.

They pass in any order that their device takes, and more than one may wait for its backward pass.
The trunk's gradients are added in the order of the backward passes, and count when the last one is
there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from elsa.errors import ProtocolError
from elsa.wire.messages import Activations


@dataclass
class MicroBatches:
    """Those of one local step.

    Attributes:
        most: that there may be; each holds its activations until its backward pass.
        came: those whose forward pass was taken.
        count: how many there are; 0 until the last one came.
        gradients: the trunk's, added up.
        rows: behind them.
    """

    most: int
    came: set[int] = field(default_factory=set)
    count: int = 0
    gradients: dict[str, Tensor | None] = field(default_factory=dict)
    rows: int = 0

    @property
    def whole(self) -> bool:
        """Whether all of them have come."""
        return len(self.came) == self.count

    def check(self, peer: str, request: Activations) -> None:
        """Raise ProtocolError if a device's micro-batch is one that may not come."""
        number, what = request.micro_batch, f"device {peer}: micro-batch {request.micro_batch}"
        if number + request.more >= self.most:
            raise ProtocolError(
                f"{what} of step {request.step}{' and another' if request.more else ''}; an edge "
                f"server holds {self.most} of a device at once (train.in_flight, which must be the "
                "same at both ends)"
            )
        ends = not request.more
        twice = number in self.came
        if twice or (self.count and (ends or number >= self.count)) or number < ends * self._next:
            raise ProtocolError(f"{what} of step {request.step} out of turn")

    @property
    def _next(self) -> int:
        return max(self.came, default=-1) + 1

    def take(self, request: Activations) -> None:
        """Its forward pass is taken."""
        self.came.add(request.micro_batch)
        if not request.more:
            self.count = request.micro_batch + 1

    def add(self, gradients: Mapping[str, Tensor | None], rows: int) -> None:
        """Add the gradients of a micro-batch of so many rows."""
        self.rows += rows
        for name, gradient in gradients.items():
            before = self.gradients.get(name)
            if before is None or gradient is None:
                self.gradients[name] = before if gradient is None else gradient
            else:
                self.gradients[name] = before + gradient

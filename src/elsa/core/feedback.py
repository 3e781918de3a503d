"""Error feedback: what a sample's last packet left out is added to its next.

    sent_t = code(x_t + e_t)        e_t+1 = x_t + e_t - decoded(sent_t)

so that the mean of what is decoded over repeats of a sample tends to the mean of its values
(Seide et al. 2014; Karimireddy et al. 2019, arXiv 1901.09847). It holds only for a coder whose
relative error is below 1: with any other, e grows without bound; see `CountSketch.shrink`.

Shapes: T tokens, D hidden size.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from elsa.core.codec import Coder, Frame, Packet, all_finite, take_values
from elsa.core.samples import TAG, Known, SampleStore, check_samples
from elsa.errors import CodecError


class ErrorFeedback:
    """A coder with memory at the sender; the receiver's object only decodes."""

    def __init__(self, inner: Coder, capacity: int, folder: Path | None = None) -> None:
        """Start with no error.

        Args:
            inner: the coder.
            capacity: bytes of remembered errors at most; a forgotten one counts as none.
            folder: where to remember on disk; None takes memory. Of this object alone.
        """
        self._inner = inner
        self._errors = SampleStore(capacity, folder)
        self.name = f"feedback+{inner.name}"

    def size(self, tokens: int, hidden: int) -> int:
        """Bytes of the payload: the coder's."""
        return self._inner.size(tokens, hidden)

    def encode(self, values: Tensor, frame: Frame, full: bool = False) -> Packet:  # noqa: ARG002
        """Encode [T, D]; samples without a number are coded without memory.

        Raises:
            CodecError: the values or the frame cannot be used, or the error has grown beyond all
                bounds.
        """
        exact, dtype = take_values(values, self.name, frame)
        if not frame.samples:
            return replace(self._inner.encode(exact, frame), codec=self.name, dtype=dtype)
        check_samples(frame, self.name)
        due = exact.clone()
        for piece, sample in zip(
            due.split_with_sizes(list(frame.lengths)), frame.samples, strict=True
        ):
            error = self._errors.get(sample)
            if error is not None and error.shape == piece.shape:
                piece.add_(error.values)
        packet = self._inner.encode(due, frame)
        left = due - self._inner.decode(packet, frame)
        if not all_finite(left):
            raise CodecError(
                f"{self.name}: the error diverges; the coder errs by more than it sends"
            )
        for piece, sample in zip(
            left.split_with_sizes(list(frame.lengths)), frame.samples, strict=True
        ):
            self._errors.put(sample, Known.of(bytes(TAG), piece))
        return replace(packet, codec=self.name, dtype=dtype)

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D]; raises CodecError on a packet that does not fit."""
        if packet.codec != self.name:
            raise CodecError(
                f"packet made by codec '{packet.codec}' where '{self.name}' was agreed on"
            )
        return self._inner.decode(replace(packet, codec=self._inner.name), frame)

    def state(self) -> dict[str, Tensor]:
        """The errors."""
        return self._errors.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an earlier `state`."""
        self._errors.restore(state)

"""Send what changed since the peer last saw a sample, or nothing.

Hidden states of a sample change little from epoch to epoch (AQ-SGD, Wang et al. 2022, arXiv
2206.01299; SplitCom, arXiv 2602.10564). Both ends remember, for each sample, what was decoded last;
a sample is sent in full, as a coded difference, or not at all when

    |x - known| <= threshold |x|

Differences are taken from what the peer really holds, so errors do not pile up: what is decoded is
off by at most the threshold, or by the error of the coder that was used.

    payload = how each sample is sent, 2 bits | 4 bytes of its tag, for each not in full
              | full samples, by one coder | differences, by another

A sample's tag digests all the packets that made its state. A decoder that does not hold the state
that the encoder built on (it forgot, restarted, or missed a packet) finds another tag and raises
`CacheMiss` without having changed anything; the sender then encodes the same values with full=True,
which any decoder takes, and both agree again. Values that two machines compute from the same
packets may differ in the last bit, which tags allow.

Shapes: B samples, L tokens of a sample, T tokens of all, D hidden size.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elsa.core.bits import pack, packed_size, unpack
from elsa.core.codec import Coder, Frame, Packet, all_finite, check_floats, take_values
from elsa.core.samples import TAG, Known, SampleStore
from elsa.errors import CodecError, ConfigError

_FULL, _DELTA, _SAME = 0, 1, 2
_SENT_TAG = 4


class CacheMiss(CodecError):  # noqa: N818 - a normal event, healed by a full send
    """The decoder does not hold what the encoder built on; encode again with full=True.

    Attributes:
        samples: the samples it lacks.
    """

    def __init__(self, samples: Sequence[int]) -> None:
        self.samples = tuple(samples)
        super().__init__(
            f"temporal: {len(self.samples)} samples are not what the sender thinks, the first "
            f"{self.samples[0]}; it must send them in full"
        )


@dataclass(frozen=True)
class _Plan:
    """How the samples of a packet are sent."""

    modes: NDArray[np.uint8]
    frame: Frame

    def rows(self, mode: int) -> Tensor | slice:
        """Tokens [*] (int64) of the samples sent like this; a slice where it is all of them."""
        if (self.modes == mode).all():
            return slice(None)
        chosen = np.repeat(self.modes == mode, self.frame.lengths)
        return torch.from_numpy(chosen.nonzero()[0])

    def part(self, mode: int) -> Frame:
        """The frame of these samples alone."""
        chosen = (self.modes == mode).nonzero()[0].tolist()
        lengths = [self.frame.lengths[place] for place in chosen]
        return Frame(lengths, self.frame.seed, [self.frame.samples[place] for place in chosen])

    def tags(self, known: Sequence[Known | None]) -> list[bytes]:
        """What each sample's next state builds on; nothing where it is sent in full."""
        return [
            it.tag if it is not None and mode != _FULL else b""
            for it, mode in zip(known, self.modes, strict=True)
        ]


class Temporal:
    """The codec at one end; encoder and decoder each have their own object, of equal settings."""

    def __init__(
        self,
        full: Coder,
        delta: Coder,
        threshold: float,
        capacity: int,
        folder: Path | None = None,
    ) -> None:
        """Start remembering nothing.

        Args:
            full: codes samples that the peer does not know.
            delta: codes differences.
            threshold: relative change up to which a sample is not sent again; 0 sends every change.
            capacity: bytes to remember at most; both ends must have the same.
            folder: where to remember on disk; None takes memory. Of this object alone.
        """
        if not 0 <= threshold < 1:
            raise ConfigError(f"temporal: threshold = {threshold}; allowed: 0 up to below 1")
        self._coders = ((_FULL, full), (_DELTA, delta))
        self._threshold = threshold
        self._store = SampleStore(capacity, folder)
        self.name = f"temporal:{threshold}:{capacity}@{full.name}@{delta.name}"

    def encode(self, values: Tensor, frame: Frame, full: bool = False) -> Packet:
        """Encode [T, D].

        Args:
            values: the samples' tokens in a row.
            frame: with a number for each sample, none twice.
            full: send all in full, because the peer answered with CacheMiss.

        Raises:
            CodecError: the values or the frame cannot be used.
        """
        exact, dtype = take_values(values, self.name, frame)
        check_samples(frame, self.name)
        known = [None] * len(frame.lengths) if full else self._lookup(frame, exact.shape[1])
        held = _gather(known, frame, exact.shape[1])
        change = exact - held
        plan = _Plan(self._choose(exact, change, known, frame), frame)
        anew = plan.rows(_FULL)
        held[anew] = 0
        change[anew] = exact[anew]
        tags = plan.tags(known)
        payload = pack(plan.modes, 2) + b"".join(tag[:_SENT_TAG] for tag in tags)
        for mode, coder in self._coders:
            rows, part = plan.rows(mode), plan.part(mode)
            if part.lengths:
                sent = coder.encode(change[rows], part)
                held[rows] += coder.decode(sent, part)
                payload += sent.payload
        packet = Packet(self.name, dtype, tuple(values.shape), payload)
        self._remember(plan, tags, held, packet)
        return packet

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D].

        Raises:
            CacheMiss: the packet builds on what is not here.
            CodecError: the packet does not fit. In both cases nothing has changed here.
        """
        dtype = check_floats(packet, self.name, frame)
        check_samples(frame, self.name)
        plan, sent_tags, parts = self._open(packet, frame)
        known = self._lookup(frame, packet.shape[1])
        tags = plan.tags(known)
        missing = [
            sample
            for sample, mode, tag, sent in zip(
                frame.samples, plan.modes, tags, sent_tags, strict=True
            )
            if mode != _FULL and (not tag or tag[:_SENT_TAG] != sent)
        ]
        if missing:
            raise CacheMiss(missing)
        held = _gather(known, frame, packet.shape[1])
        held[plan.rows(_FULL)] = 0
        for mode, coder in self._coders:
            if mode in parts:
                held[plan.rows(mode)] += coder.decode(parts[mode], plan.part(mode))
        if not all_finite(held):
            raise CodecError("temporal: a packet that decodes to NaN or infinity")
        self._remember(plan, tags, held, packet)
        return held.to(dtype)

    def state(self) -> dict[str, Tensor]:
        """What is remembered; on disk, only what must be there."""
        return self._store.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an earlier `state`; what is no longer on disk is forgotten."""
        self._store.restore(state)

    def _lookup(self, frame: Frame, hidden: int) -> list[Known | None]:
        """What is remembered of each sample, if it is of the shape that is due."""
        found = [self._store.get(sample) for sample in frame.samples]
        return [
            it if it is not None and it.values.shape == (length, hidden) else None
            for it, length in zip(found, frame.lengths, strict=True)
        ]

    def _choose(
        self, exact: Tensor, change: Tensor, known: Sequence[Known | None], frame: Frame
    ) -> NDArray[np.uint8]:
        """The cheapest way that keeps each sample's error in bounds."""
        moved, size = _norms(change, frame), _norms(exact, frame)
        if not np.isfinite(size).all():  # infinity has not changed by more than any threshold
            raise CodecError("temporal: values that are not finite; training has diverged")
        modes = np.where(moved < size, _DELTA, _FULL)
        modes = np.where(moved <= self._threshold * size, _SAME, modes)
        return np.where([it is None for it in known], _FULL, modes).astype(np.uint8)

    def _open(self, packet: Packet, frame: Frame) -> tuple[_Plan, list[bytes], dict[int, Packet]]:
        """The parts of a packet: its plan, the tags sent with it, and a packet for each coder."""
        count = len(frame.lengths)
        start = packed_size(count, 2)
        if len(packet.payload) < start:
            raise CodecError(f"temporal: {len(packet.payload)} bytes for {count} samples")
        plan = _Plan(unpack(packet.payload[:start], 2, count), frame)
        if plan.modes.max(initial=0) > _SAME:
            raise CodecError("temporal: a sample sent in a way that does not exist")
        tags, parts = [], {}
        for mode in plan.modes:
            end = start + (_SENT_TAG if mode != _FULL else 0)
            tags.append(packet.payload[start:end])
            start = end
        for mode, coder in self._coders:
            shape = (sum(plan.part(mode).lengths), packet.shape[1])
            if shape[0]:
                end = start + coder.size(*shape)
                parts[mode] = Packet(coder.name, "float32", shape, packet.payload[start:end])
                start = end
        if len(packet.payload) != start:
            raise CodecError(f"temporal: {len(packet.payload)} bytes where its parts take {start}")
        return plan, tags, parts

    def _remember(
        self, plan: _Plan, tags: Sequence[bytes], decoded: Tensor, packet: Packet
    ) -> None:
        frame = plan.frame
        digest = hashlib.blake2b(packet.payload, digest_size=16)
        digest.update(repr((frame.seed, list(frame.lengths), packet.shape)).encode())
        pieces = decoded.bfloat16().split_with_sizes(list(frame.lengths))
        for sample, mode, tag, piece in zip(frame.samples, plan.modes, tags, pieces, strict=True):
            if mode == _SAME:
                self._store.touch(sample)
            else:
                text = tag + digest.digest() + str(sample).encode()
                self._store.put(sample, hashlib.blake2b(text, digest_size=TAG).digest(), piece)


def check_samples(frame: Frame, codec: str) -> None:
    """Refuse a frame without a number for each sequence, or with one twice; raises CodecError."""
    samples = frame.samples
    if len(samples) != len(frame.lengths) or len(set(samples)) != len(samples):
        raise CodecError(
            f"{codec}: {len(set(samples))} different samples for {len(frame.lengths)} sequences; "
            "each needs a number of its own"
        )
    if any(not 0 <= sample < 2**63 for sample in samples):
        raise CodecError(f"{codec}: a sample's number is outside of 0 to 2^63 - 1")


def _gather(known: Sequence[Known | None], frame: Frame, hidden: int) -> Tensor:
    """What is known of all samples [T, D], float32, zeros where nothing is."""
    pieces = [
        torch.zeros(length, hidden, dtype=torch.bfloat16) if it is None else it.values
        for it, length in zip(known, frame.lengths, strict=True)
    ]
    return torch.cat(pieces).float() if pieces else torch.zeros(0, hidden)


def _norms(values: Tensor, frame: Frame) -> NDArray[np.float64]:
    """Norm of each sample's values: [T, D] -> [B]."""
    squares = torch.linalg.vector_norm(values, dim=1).double().square().numpy()
    ends = np.cumsum(frame.lengths)
    starts = ends - np.asarray(frame.lengths)
    return np.sqrt([squares[a:b].sum() for a, b in zip(starts, ends, strict=True)])

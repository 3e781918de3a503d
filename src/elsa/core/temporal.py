"""Send what changed since the peer last saw a sample; where that is little, nothing.

Hidden states of a sample change little from epoch to epoch (AQ-SGD, Wang et al. 2022, arXiv
2206.01299; SplitCom, arXiv 2602.10564). Both ends remember, for each sample, what was decoded last.
The change from it is coded by water-filling (`core.waterfill`) to an error that is a part of the
values themselves, not of the change: a token that moved by less costs next to nothing, one that
moved by more costs as many bits as bring it back inside.

    |x - decoded| <= error |x|        over the tensor, for values near Gaussian after a rotation

Changes are taken from what the peer really holds, so errors never pile up.

    payload = 1 bit a sample: whether it builds on what is remembered | tag, 8 bytes, if any does |
              changes, water-filled

A sample's tag digests all the packets that made its state, and the tag sent digests those of the
samples in the packet. A decoder that does not hold what the encoder built on (it forgot, restarted,
or missed a packet) finds another tag and raises `CacheMiss` without having changed anything; the
sender then encodes the same values with full=True, which any decoder takes, and both agree again.
Values that two machines compute from the same packets may differ in the last bit, which tags allow.

A frame that does not number its samples is sent in full, and not remembered.

What is remembered lies on the axes of the coder.

Shapes: B samples, L tokens of a sample, T tokens of all, D hidden size.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elsa.core.bits import pack, packed_size, unpack
from elsa.core.codec import Frame, Packet, all_finite, check_floats, take_values
from elsa.core.samples import TAG, Known, SampleStore
from elsa.core.waterfill import Filled, WaterFill
from elsa.errors import CacheMiss, CodecError


class Temporal:
    """The codec at one end; encoder and decoder each have their own object, of equal settings."""

    def __init__(self, coder: WaterFill, capacity: int, folder: Path | None = None) -> None:
        """Start remembering nothing.

        Args:
            coder: codes the changes, and says how large the error may be.
            capacity: bytes to remember at most; both ends must have the same.
            folder: where to remember on disk; None takes memory. Of this object alone.
        """
        self._coder = coder
        self._store = SampleStore(capacity, folder)
        self.name = f"temporal:{capacity}@{coder.name}"

    def encode(self, values: Tensor, frame: Frame, full: bool = False) -> Packet:
        """Encode [T, D].

        Args:
            values: the samples' tokens in a row.
            frame: with a number for each sample, none twice; or with none at all.
            full: send all in full, because the peer answered with CacheMiss.

        Raises:
            CodecError: the values or the frame cannot be used.
        """
        exact, dtype = take_values(values, self.name, frame)
        exact = self._coder.turn(exact)
        whole = self._coder.energies(exact)
        known = self._lookup(frame, exact.shape[1])
        if full:
            known = [None] * len(known)
        held = _gather(known, frame, exact.shape[1])
        change = exact - held
        moved = self._coder.energies(change)
        cells = _cells_of(frame, len(whole))
        for place in (_sums(moved, cells) >= _sums(whole, cells)).nonzero()[0]:
            known[place] = None
        for start, end, it in zip(*_tokens_of(frame), known, strict=True):
            if it is None:
                held[start:end] = 0
                change[start:end] = exact[start:end]
        anew = np.repeat([it is None for it in known], cells)
        moved = np.where(anew, whole, moved)
        filled = self._coder.fill(change, moved, float(whole.sum()), frame)
        payload = _head(known) + self._coder.write(filled, change, frame)
        packet = Packet(self.name, dtype, tuple(values.shape), payload)
        self._change(held, known, filled, packet, frame)
        return packet

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D].

        Raises:
            CacheMiss: the packet builds on what is not here.
            CodecError: the packet does not fit. In both cases nothing has changed here.
        """
        dtype = check_floats(packet, self.name, frame)
        known = self._lookup(frame, packet.shape[1])
        start = packed_size(len(known), 1)
        if len(packet.payload) < start:
            raise CodecError(f"{self.name}: {len(packet.payload)} bytes for {len(known)} samples")
        builds = unpack(packet.payload[:start], 1, len(known))
        known = [it if flag else None for it, flag in zip(known, builds, strict=True)]
        if builds.any():
            tag, start = packet.payload[start : start + TAG], start + TAG
            if sum(it is not None for it in known) < builds.sum() or tag != _tag(known):
                raise CacheMiss(
                    f"{self.name}: {builds.sum()} samples are not what the sender thinks; it must "
                    "send them in full"
                )
        tokens, hidden = packet.shape
        filled = self._coder.read(packet.payload[start:], tokens, hidden, frame)
        held = _gather(known, frame, packet.shape[1])
        self._change(held, known, filled, packet, frame)
        return self._coder.turn_back(held).to(dtype)

    def state(self) -> dict[str, Tensor]:
        """What is remembered; on disk, only what must be there."""
        return self._store.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an earlier `state`; what is no longer on disk is forgotten."""
        self._store.restore(state)

    def _lookup(self, frame: Frame, hidden: int) -> list[Known | None]:
        """What is remembered of each sample, if it is of the shape that is due."""
        if not frame.samples:
            return [None] * len(frame.lengths)
        check_samples(frame, self.name)
        found = [self._store.get(sample) for sample in frame.samples]
        return [
            it if it is not None and it.values.shape == (length, hidden) else None
            for it, length in zip(found, frame.lengths, strict=True)
        ]

    def _change(
        self,
        held: Tensor,
        known: Sequence[Known | None],
        filled: Filled,
        packet: Packet,
        frame: Frame,
    ) -> None:
        """Add to what is held [T, D] the changes sent in a packet, and remember it."""
        self._coder.expand(filled, held, frame)
        if not all_finite(held):
            raise CodecError(f"{self.name}: a packet that decodes to NaN or infinity")
        if not frame.samples:
            return
        digest = hashlib.blake2b(packet.payload, digest_size=16)
        digest.update(repr((frame.seed, list(frame.lengths), packet.shape)).encode())
        bits = _sums(filled.bits, _cells_of(frame, len(filled.bits)))
        pieces = held.bfloat16().split_with_sizes(list(frame.lengths))
        for sample, it, piece, some in zip(frame.samples, known, pieces, bits, strict=True):
            if it is not None and not some:
                self._store.touch(sample)
                continue
            text = (b"" if it is None else it.tag) + digest.digest() + str(sample).encode()
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


def _head(known: Sequence[Known | None]) -> bytes:
    flags = pack(np.array([it is not None for it in known], np.uint8), 1)
    return flags + (_tag(known) if any(known) else b"")


def _tag(known: Sequence[Known | None]) -> bytes:
    tags = b"".join(it.tag for it in known if it is not None)
    return hashlib.blake2b(tags, digest_size=TAG).digest()


def _gather(known: Sequence[Known | None], frame: Frame, hidden: int) -> Tensor:
    """What is known of all samples [T, D], float32, zeros where nothing is."""
    held = torch.zeros(sum(frame.lengths), hidden)
    for start, end, it in zip(*_tokens_of(frame), known, strict=True):
        if it is not None:
            held[start:end] = it.values
    return held


def _tokens_of(frame: Frame) -> tuple[list[int], list[int]]:
    """Where each sample's tokens begin and end."""
    ends = list(accumulate(frame.lengths))
    return [0, *ends[:-1]], ends


def _cells_of(frame: Frame, cells: int) -> NDArray[np.int64]:
    """How many of the `cells` each sample has [B]."""
    return np.asarray(frame.lengths, np.int64) * (cells // max(1, sum(frame.lengths)))


def _sums(values: NDArray[Any], cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum of the cells' values of each sample: [C] -> [B]."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    ends = np.cumsum(cells)
    found: NDArray[np.float64] = sums[ends] - sums[ends - cells]
    return found

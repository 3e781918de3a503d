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

A sample's tag digests the last packet that changed it, and the tag sent those of the samples that
the packet builds on, so that all the packets that made a state count. A decoder that does not hold
what the encoder built on (it forgot, restarted, or missed a packet) finds another tag and raises
`CacheMiss` without having changed anything; the sender then encodes the same values with full=True,
which any decoder takes, and both agree again. Values that two machines compute from the same
packets may differ in the last bit, which tags allow.

A frame that does not number its samples is sent in full, and not remembered.

What is remembered lies on the axes of the coder.

Shapes: B samples, L tokens of a sample, T tokens of all, D hidden size.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elsa.core import allot
from elsa.core.cells import room
from elsa.core.codec import Frame, Packet, check_floats, take_values
from elsa.core.samples import TAG, Known, SampleStore, check_samples, values_of
from elsa.core.waterfill import WaterFill
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
        tokens, hidden = exact.shape
        cells, lengths = self._coder.cells(hidden), _lengths(frame)
        exact = self._coder.turn(exact, inside=values.dtype != exact.dtype)
        known = self._lookup(frame, hidden)
        if full:
            known = [None] * len(known)
        held = _gather(known, frame, hidden)
        builds = np.array([it is not None for it in known], np.uint8)
        moved = torch.empty(tokens * len(cells), dtype=torch.float64)
        energy = allot.compare(
            exact,
            held,
            lengths,
            cells.shape,
            torch.from_numpy(builds),
            room(hidden),
            torch.empty_like(moved),
            moved,
        )
        filled = self._coder.fill(moved, energy, hidden)
        known = _built_on(known, builds.tolist())
        payload = self._coder.write(filled, exact, held, frame, _head(known, builds, frame))
        packet = Packet(self.name, dtype, (tokens, hidden), payload)
        self._remember(held, known, filled.bits, packet, frame, lengths)
        return packet

    def decode(self, packet: Packet, frame: Frame) -> Tensor:
        """Decode to [T, D].

        Raises:
            CacheMiss: the packet builds on what is not here.
            CodecError: the packet does not fit. In both cases nothing has changed here.
        """
        dtype = check_floats(packet, self.name, frame)
        known = self._lookup(frame, packet.shape[1])
        start = -(-len(known) // 8)
        if len(packet.payload) < start:
            raise CodecError(f"{self.name}: {len(packet.payload)} bytes for {len(known)} samples")
        flags = np.frombuffer(packet.payload, np.uint8, start)
        builds = np.unpackbits(flags, count=len(known), bitorder="little").tolist()
        known, count = _built_on(known, builds), sum(builds)
        if count:
            tag, start = packet.payload[start : start + TAG], start + TAG
            if sum(it is not None for it in known) < count or tag != _tag(known, frame):
                raise CacheMiss(
                    f"{self.name}: {count} samples are not what the sender thinks; it must "
                    "send them in full"
                )
        tokens, hidden = packet.shape
        received = self._coder.read(packet.payload, tokens, hidden, frame, start)
        held = self._coder.expand(received, _gather(known, frame, hidden), frame)
        self._remember(held, known, received.bits, packet, frame, _lengths(frame))
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
        found = self._store.get_all(frame.samples)
        return [
            it if it is not None and it.shape == (length, hidden) else None
            for it, length in zip(found, frame.lengths, strict=True)
        ]

    def _remember(
        self,
        held: Tensor,
        known: Sequence[Known | None],
        bits: Tensor,
        packet: Packet,
        frame: Frame,
        lengths: Tensor,
    ) -> None:
        """Keep what is held [T, D] after a packet of cells of so many bits."""
        hidden = packet.shape[1]
        values = torch.empty(held.shape, dtype=torch.uint16)
        changed = torch.empty(len(known), dtype=torch.uint8)
        cells = len(self._coder.cells(hidden))
        if not allot.settle(held, lengths, bits, cells, values, changed):
            raise CodecError(f"{self.name}: a packet that decodes to NaN or infinity")
        if not frame.samples:
            return
        digest = hashlib.blake2b(packet.payload, digest_size=TAG)
        facts = (frame.seed, list(frame.lengths), list(frame.samples), packet.shape)
        digest.update(repr(facts).encode())
        tag, raw, end = digest.digest(), values.numpy().data.cast("B"), 0
        states: list[Known | None] = []
        for length, it, some in zip(frame.lengths, known, changed.tolist(), strict=True):
            begin, end = end, end + 2 * length * hidden
            if it is not None and not some:
                states.append(None)
            else:
                states.append(Known(tag, (length, hidden), raw[begin:end].tobytes()))
        self._store.put_all(frame.samples, states)


def _built_on(known: Sequence[Known | None], builds: Sequence[int]) -> list[Known | None]:
    return [it if flag else None for it, flag in zip(known, builds, strict=True)]


def _head(known: Sequence[Known | None], builds: NDArray[np.uint8], frame: Frame) -> bytes:
    flags = np.packbits(builds, bitorder="little").tobytes()
    return flags + (_tag(known, frame) if any(known) else b"")


def _tag(known: Sequence[Known | None], frame: Frame) -> bytes:
    """Digest of the states that are built on, and of whose they are."""
    states = [
        (sample, it.tag) for sample, it in zip(frame.samples, known, strict=True) if it is not None
    ]
    return hashlib.blake2b(repr(states).encode(), digest_size=TAG).digest()


def _gather(known: Sequence[Known | None], frame: Frame, hidden: int) -> Tensor:
    """What is known of all samples [T, D], float32, zeros where nothing is."""
    if not any(known):
        return torch.zeros(sum(frame.lengths), hidden)
    raw = [
        bytes(2 * length * hidden) if it is None else it.raw
        for it, length in zip(known, frame.lengths, strict=True)
    ]
    return values_of(raw, (sum(frame.lengths), hidden)).float()


def _lengths(frame: Frame) -> Tensor:
    return torch.from_numpy(np.array(frame.lengths, np.int64))

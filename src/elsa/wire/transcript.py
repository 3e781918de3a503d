"""A layer that writes down what passes between devices and their edge servers.

What is kept are the frames as they were on the wire, in both directions, and nothing else: what an
edge server sees of a device. A file holds one edge round of one device, under

    FOLDER/<edge>/<device>/<round>.<edge round>.frames

and is begun anew when that edge round begins anew, so a run that was killed and resumed leaves the
same files as one that was not. A record is 1 byte for the direction ("u" or "d"), 8 bytes for the
size (little endian), and the frame; one that was torn by a kill ends the file.

Evaluations are not recorded: they show held-out rows in the way that training shows its rows.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from elsa.errors import FrameError, RunError
from elsa.wire.messages import LocalPlan, Message, Ready, Refusal
from elsa.wire.serde import decode
from elsa.wire.transport import Direction, Link, Passage

_HEAD = 9
_SUFFIX = ".frames"
_WAYS: dict[bytes, Direction] = {b"u": "up", b"d": "down"}


@dataclass(frozen=True)
class Recording:
    """The frames of one edge round of one device.

    Attributes:
        edge, device: who talked.
        round, edge_round: when, both from 0.
        path: where the frames are.
    """

    edge: str
    device: str
    round: int
    edge_round: int
    path: Path

    def messages(self) -> Iterator[tuple[Direction, Message]]:
        """What was said, in order; ends early where the recording was cut short.

        Raises:
            RunError: the file cannot be read, or holds something else.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read: {error.strerror}") from error
        at = 0
        while at + _HEAD <= len(data):
            way = _WAYS.get(data[at : at + 1])
            size = int.from_bytes(data[at + 1 : at + _HEAD], "little")
            frame = data[at + _HEAD : at + _HEAD + size]
            if way is None:
                raise RunError(f"{self.path}: no recording of frames (byte {at})")
            if len(frame) < size:
                return
            try:
                yield way, decode(frame)
            except FrameError as error:
                raise RunError(f"{self.path}: a frame cannot be read: {error}") from error
            at += _HEAD + size


class Recorder:
    """A layer of all links of a run; see `transport` for where it sits.

    Attributes:
        full: whether something was left out because the limit was reached.
    """

    def __init__(
        self, folder: Path, rounds: int, limit: int, devices: Collection[str] | None = None
    ) -> None:
        """Set up; nothing is written before the first frame.

        Args:
            folder: where to write.
            rounds: global rounds to record, the first so many.
            limit: bytes to write at most, earlier recordings in the folder not counted.
            devices: whom to record; None records all.
        """
        self.full = False
        self._folder = folder
        self._rounds = rounds
        self._left = limit
        self._devices = devices
        self._asked: dict[Link, bytes] = {}
        self._open: dict[Link, Path] = {}
        self._ready: dict[Link, Ready] = {}

    def __call__(self, passage: Passage) -> bytes:
        """Keep the frame if it belongs to what is recorded; it passes unchanged."""
        link, message = passage.link, passage.message
        if link.tier == "device_edge" and self._wanted(link.below):
            self._follow(link, message, passage)
        return passage.data

    def _wanted(self, device: str) -> bool:
        return self._devices is None or device in self._devices

    def _follow(self, link: Link, message: Message, passage: Passage) -> None:
        match message:
            case Ready():
                self._open.pop(link, None)
                self._ready[link] = message
                self._asked[link] = passage.data
            case LocalPlan(local_steps=steps) if link in self._ready:
                ready, frame = self._ready.pop(link), self._asked.pop(link)
                if steps and ready.round < self._rounds:
                    self._begin(link, ready)
                    self._write(link, "up", frame)
                    self._write(link, "down", passage.data)
            case Refusal():
                self._write(link, passage.direction, passage.data)
                self._open.pop(link, None)
            case _:
                self._write(link, passage.direction, passage.data)

    def _begin(self, link: Link, ready: Ready) -> None:
        folder = self._folder / link.above / link.below
        path = folder / f"{ready.round}.{ready.edge_round}{_SUFFIX}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}") from error
        self._open[link] = path

    def _write(self, link: Link, way: Direction, frame: bytes) -> None:
        path = self._open.get(link)
        if path is None:
            return
        record = way[:1].encode() + len(frame).to_bytes(8, "little") + frame
        if len(record) > self._left:
            self.full = True
            del self._open[link]
            return
        self._left -= len(record)
        try:
            with path.open("ab") as file:
                file.write(record)
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}") from error


def recordings(folder: Path) -> list[Recording]:
    """What a folder holds, by edge and device, in the order in which it was said."""
    found = []
    for path in folder.glob(f"*/*/*{_SUFFIX}"):
        round_, _, edge_round = path.name.removesuffix(_SUFFIX).partition(".")
        if round_.isdigit() and edge_round.isdigit():
            device = path.parent
            found.append(
                Recording(device.parent.name, device.name, int(round_), int(edge_round), path)
            )
    return sorted(found, key=lambda it: (it.edge, it.device, it.round, it.edge_round))

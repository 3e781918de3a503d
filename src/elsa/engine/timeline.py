"""What the virtual clock saw, as rows of a timeline: each party's, and each link's."""

from dataclasses import dataclass

from elsa.engine.federation import Federation
from elsa.engine.schedule import Leg
from elsa.record.timeline import TimelineFile

CLOUD = "cloud"


def rows_of(federation: Federation) -> dict[str, list[str]]:
    """The rows of a federation, by group."""
    edges = [row for edge in federation.edges for row in (edge, _to_cloud(edge))]
    devices = [row for it in federation.devices for row in (it, _up(it), _down(it))]
    return {CLOUD: [CLOUD], "edge servers": edges, "devices": devices}


@dataclass(frozen=True)
class Seen:
    """A leg of a device, in simulated seconds."""

    device: str
    leg: Leg
    start: float
    end: float


class Timeline:
    """Draws a simulation; all times are simulated seconds since the run began."""

    def __init__(self, file: TimelineFile) -> None:
        """Draw into a file with the rows of `rows_of`."""
        self._file = file
        self._until: dict[str, float] = {}

    def work(self, edge: str, seen: Seen, until: float) -> None:
        """A leg of a device of an edge, as far as it lasted before `until`.

        A frame that follows another before that has arrived is drawn from when it has.
        """
        start, last = seen.start, len(seen.leg.parts) - 1
        for number, part in enumerate(seen.leg.parts):
            end = seen.end if number == last else start + part.seconds
            row, what = {
                "device": (seen.device, part.what),
                "up": (_up(seen.device), part.what),
                "down": (_down(seen.device), part.what),
                "edge": (edge, f"{part.what} {seen.device}"),
            }[part.by]
            if part.by in ("up", "down"):
                start = max(start, self._until.get(row, start))
                self._until[row] = max(start, min(end, until))
            self._file.span(row, what, start, min(end, until))
            start = end

    def averaged(self, edge: str, what: str, at: float) -> None:
        """An edge took an average."""
        self._file.mark(edge, what, at)

    def sent(self, edge: str, what: str, start: float, end: float) -> None:
        """A message passed between an edge and the cloud."""
        self._file.span(_to_cloud(edge), what, start, end)

    def round(self, number: int, start: float, end: float) -> None:
        """A global round, as the cloud waits for it."""
        self._file.span(CLOUD, f"round {number}", start, end)


def _up(device: str) -> str:
    return f"{device} link up"


def _down(device: str) -> str:
    return f"{device} link down"


def _to_cloud(edge: str) -> str:
    return f"{edge} link to the cloud"

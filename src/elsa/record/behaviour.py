"""How devices behaved in a run, read back for drawings: maps of clusters, and trust."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from elsa.errors import RunError
from elsa.record.events import Clustered, DeviceJudged, DevicePlaced, Event, Poisoned
from elsa.record.log import read_events


@dataclass(frozen=True)
class ClusterMap:
    """Devices in the plane after a clustering.

    Attributes:
        round: global round after which it was made.
        devices: names, n.
        points: [n] (x, y), whose distances are like the square roots of how far apart they are.
        clusters: number of each device's cluster.
        edges: name of the edge that each device has from then on; empty for none.
    """

    round: int
    devices: tuple[str, ...]
    points: tuple[tuple[float, float], ...]
    clusters: tuple[int, ...]
    edges: tuple[str, ...]


@dataclass(frozen=True)
class TrustHistory:
    """Trust over the edge rounds that were watched.

    Attributes:
        moments: (global round, edge round) of each, in order.
        trust: of each device, by name, at each moment; None where it did not take part.
        cut: moments at which a device's update was dropped, by name.
        poisoned: devices that the simulator poisoned at some time.
    """

    moments: tuple[tuple[int, int], ...]
    trust: Mapping[str, tuple[float | None, ...]]
    cut: Mapping[str, frozenset[int]]
    poisoned: frozenset[str]


def read_cluster_maps(run: Path) -> list[ClusterMap]:
    """The maps of a run directory, one for each clustering; none if nothing was clustered.

    Raises:
        RunError: a file is missing, damaged, or of other devices than the events say.
    """
    maps: list[ClusterMap] = []
    placed: dict[str, str] = {}
    due: Clustered | None = None
    for event in [*(entry.event for entry in read_events(run / "events.jsonl")), None]:
        if isinstance(event, DevicePlaced):
            placed[event.device] = event.edge
            continue
        if due is not None:  # the places that follow a clustering are read
            maps.append(_map(run, due, placed))
            due = None
        if isinstance(event, Clustered):
            due = event
    return maps


def read_trust(run: Path) -> TrustHistory:
    """Trust in a run directory; empty if nobody was judged.

    Raises:
        RunError: the events are damaged.
    """
    seen: Sequence[Event] = [entry.event for entry in read_events(run / "events.jsonl")]
    judged = [event for event in seen if isinstance(event, DeviceJudged)]
    moments = tuple(dict.fromkeys((it.round, it.edge_round) for it in judged))
    names = sorted({it.device for it in judged}, key=lambda name: (len(name), name))
    trust: dict[str, list[float | None]] = {name: [None] * len(moments) for name in names}
    cut: dict[str, set[int]] = {name: set() for name in names}
    for it in judged:
        moment = moments.index((it.round, it.edge_round))
        trust[it.device][moment] = it.trust
        if not it.weight:
            cut[it.device].add(moment)
    evil = {name for event in seen if isinstance(event, Poisoned) for name in event.devices}
    return TrustHistory(
        moments,
        {name: tuple(values) for name, values in trust.items()},
        {name: frozenset(at) for name, at in cut.items()},
        frozenset(evil),
    )


def _map(run: Path, made: Clustered, placed: Mapping[str, str]) -> ClusterMap:
    import numpy as np  # late: reading the rest of a run must not wait for it

    path = run / made.file
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as held:
            names = tuple(map(str, held["devices"]))
            points = tuple((float(x), float(y)) for x, y in held["plane"])
            labels = tuple(map(int, held["labels"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path}: is missing or damaged: {error}") from error
    if not len(names) == len(points) == len(labels) or not set(names) <= placed.keys():
        raise RunError(f"{path}: holds other devices than events.jsonl")
    return ClusterMap(made.round, names, points, labels, tuple(placed[name] for name in names))

"""How devices behaved in a run, read back for drawings: maps of clusters, and trust."""

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from elsa.errors import RunError
from elsa.record.events import Clustered, DeviceJudged, DevicePlaced, Event, Poisoned
from elsa.record.log import read_events

LARGEST = 64 * 10**6
"""Bytes of a file of clusters, unpacked; one that claims more is not opened."""


@dataclass(frozen=True)
class Clustering:
    """Devices after a clustering.

    Attributes:
        round: global round after which it was made.
        devices: their names.
        labels: cluster of each.
        plane: a point in the plane for each; distances are like square roots of how far apart
            they are.
    """

    round: int
    devices: tuple[str, ...]
    labels: tuple[int, ...]
    plane: tuple[tuple[float, float], ...]


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
    it = read_clustering(run, made.round)
    if not set(it.devices) <= placed.keys():
        raise RunError(f"{run / made.file}: holds other devices than events.jsonl")
    edges = tuple(placed[name] for name in it.devices)
    return ClusterMap(made.round, it.devices, it.plane, it.labels, edges)


def read_clustering(run: Path, number: int) -> Clustering:
    """The clustering of a round of a run directory.

    Raises:
        RunError: its file is missing, damaged, or larger than any.
    """
    import numpy as np  # late: few runs have clusters, and the others need not wait for it

    # Made from the round, not from the name in the log: that could point anywhere.
    path = run / "clusters" / f"round-{number:06d}.npz"
    try:
        with zipfile.ZipFile(path) as file:
            if sum(entry.file_size for entry in file.infolist()) > LARGEST:
                raise RunError(f"{path}: is larger than any file of clusters")
        with np.load(path, allow_pickle=False) as arrays:
            devices = [str(name) for name in arrays["devices"]]
            labels = [int(label) for label in arrays["labels"]]
            plane = [(float(x), float(y)) for x, y in arrays["plane"]]
    except RunError:
        raise
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # numpy and zipfile raise a dozen kinds on damaged files
        raise RunError(f"{path}: is damaged: {error}") from error
    finite = all(math.isfinite(value) for point in plane for value in point)
    if not len(devices) == len(labels) == len(plane) or not finite:
        raise RunError(f"{path}: is damaged: its arrays do not belong together")
    return Clustering(number, tuple(devices), tuple(labels), tuple(plane))

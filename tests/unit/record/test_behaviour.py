"""What drawings are made of: the maps and the trust that a run left behind."""

from pathlib import Path

import numpy as np
import pytest

from elsa.errors import RunError
from elsa.record.behaviour import read_cluster_maps, read_trust
from elsa.record.events import Clustered, DeviceJudged, DevicePlaced, Event, Poisoned, RoundStarted
from elsa.record.log import EventLog

NAMES = ("device-2", "device-10")


def logged(run: Path, *events: Event) -> Path:
    log = EventLog(run / "events.jsonl", clock=lambda: 1.0)
    for event in events:
        log.append(event)
    log.close()
    return run


def placed(round_: int, device: str, edge: str) -> DevicePlaced:
    return DevicePlaced(round_, device, edge, "", 0, 0.0, "why")


def judged(round_: int, edge_round: int, device: str, trust: float, weight: float) -> DeviceJudged:
    return DeviceJudged(round_, edge_round, device, 0, 0.1, 0.2, trust, weight)


def clustered(run: Path, round_: int, **arrays: object) -> Clustered:
    """The event, and the file that it names."""
    held = {
        "devices": np.array(NAMES),
        "labels": np.array([0, 1]),
        "plane": np.array([[0.0, 1.0], [2.0, round_]]),
    } | arrays
    (run / "clusters").mkdir(exist_ok=True)
    name = f"clusters/round-{round_:06d}.npz"
    np.savez(run / name, **held)  # type: ignore[arg-type]
    return Clustered(round_, 2, 1, 0, name)


def test_a_map_has_the_edges_that_its_own_clustering_gave(tmp_path: Path) -> None:
    logged(
        tmp_path,
        placed(-1, "device-2", "edge-0"),
        placed(-1, "device-10", "edge-0"),
        clustered(tmp_path, 0),
        placed(0, "device-2", "edge-1"),
        RoundStarted(1, NAMES),
        clustered(tmp_path, 5),
        placed(5, "device-10", ""),
    )
    first, second = read_cluster_maps(tmp_path)
    assert (first.round, second.round) == (0, 5)
    assert first.devices == NAMES
    assert first.points == ((0.0, 1.0), (2.0, 0.0))
    assert first.clusters == (0, 1)
    assert first.edges == ("edge-1", "edge-0")
    assert second.edges == ("edge-1", "")


def test_trust_is_in_order_with_holes_where_a_device_was_away(tmp_path: Path) -> None:
    logged(
        tmp_path,
        Poisoned(0, "random", ("device-10",)),
        judged(0, 0, "device-10", 0.5, 0.0),
        judged(0, 0, "device-2", 1.0, 1.0),
        judged(0, 1, "device-2", 0.9, 0.9),
        judged(1, 0, "device-10", 0.6, 0.6),
        judged(1, 0, "device-2", 0.8, 0.8),
    )
    found = read_trust(tmp_path)
    assert found.moments == ((0, 0), (0, 1), (1, 0))
    assert list(found.trust) == ["device-2", "device-10"]
    assert found.trust["device-2"] == (1.0, 0.9, 0.8)
    assert found.trust["device-10"] == (0.5, None, 0.6)
    assert found.cut == {"device-2": frozenset(), "device-10": frozenset({0})}
    assert found.poisoned == {"device-10"}


def test_a_run_without_clusters_and_trust_has_none(tmp_path: Path) -> None:
    logged(tmp_path, RoundStarted(0, NAMES))
    assert read_cluster_maps(tmp_path) == []
    assert read_trust(tmp_path).trust == {}


@pytest.mark.parametrize("harm", ["missing", "cut", "strangers", "short"])
def test_a_damaged_map_is_named(tmp_path: Path, harm: str) -> None:
    arrays = {"devices": np.array(["device-2", "x"])} if harm == "strangers" else {}
    if harm == "short":
        arrays = {"labels": np.array([0])}
    event = clustered(tmp_path, 3, **arrays)
    path = tmp_path / event.file
    if harm == "missing":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:40])
    logged(tmp_path, placed(-1, "device-2", "e"), placed(-1, "device-10", "e"), event)
    with pytest.raises(RunError, match=r"3\.npz: (cannot be read|is damaged|holds other devices)"):
        read_cluster_maps(tmp_path)

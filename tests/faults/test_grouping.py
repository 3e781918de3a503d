"""Odd numbers of clusters, of places and of edges in reach: a defined answer, no crash mid-run."""

from pathlib import Path
from typing import Any

import pytest

from elsa.engine.build import assignment_of, device_names
from elsa.engine.clock import latencies
from elsa.engine.run import run
from elsa.errors import ConfigError
from elsa.record.behaviour import read_cluster_maps
from elsa.record.events import DeviceJudged, DevicePlaced
from elsa.record.log import read_events

NAMES = ("device-0", "device-1", "device-2")
WATCHED = (
    "cluster.strategy=behaviour",
    "cluster.probe_count=16",
    "cluster.dimensions=4",
    "federation.rounds=2",
    "evaluate.every=2",
)


def placed(out: Path, round_: int) -> dict[str, DevicePlaced]:
    seen = [entry.event for entry in read_events(out / "events.jsonl")]
    return {it.device: it for it in seen if isinstance(it, DevicePlaced) and it.round == round_}


@pytest.mark.parametrize("strategy", ["behaviour", "mixed"])
def test_more_clusters_than_devices_make_each_a_cluster(
    strategy: str, make: Any, tmp_path: Path
) -> None:
    config = make(*WATCHED, f"cluster.strategy={strategy}", "cluster.clusters=7")
    run(config, out=tmp_path / "run")
    (shown,) = read_cluster_maps(tmp_path / "run")
    assert sorted(shown.clusters) == [0, 1, 2]
    assert all(shown.edges)


def test_with_too_few_places_one_is_left_out_and_the_others_train(
    make: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = run(make(*WATCHED, "cluster.capacity=1"), out=out)
    before = placed(out, -1)
    (lonely,) = (it for it in before.values() if not it.edge)
    assert "2 places of the edges are taken" in lonely.why
    assert result.summary["accuracy"] is not None
    judged = [entry.event for entry in read_events(out / "events.jsonl")]
    assert not any(isinstance(it, DeviceJudged) and it.device == lonely.device for it in judged)


def test_whom_no_edge_is_near_enough_for_takes_no_part(make: Any, tmp_path: Path) -> None:
    out, far = tmp_path / "run", (*WATCHED, "network.latency_spread=2.0", "cluster.trust=true")
    plain = make(*far)
    seconds = latencies(plain.network, device_names(plain), list(assignment_of(plain)), 0)
    nearest = sorted(min(seconds[name, edge] for edge in assignment_of(plain)) for name in NAMES)
    limit = 1e3 * (nearest[1] + nearest[2]) / 2
    result = run(make(*far, f"cluster.latency_limit_ms={limit}"), out=out)
    (away,) = (it for it in placed(out, -1).values() if not it.edge)
    assert "no edge within the latency limit" in away.why
    assert result.summary["samples"] > 0


def test_a_run_that_nobody_can_take_part_in_is_refused_before_it_begins(
    make: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no device has an edge within .*0\.001 ms.*nearest"):
        run(make(*WATCHED, "cluster.latency_limit_ms=0.001"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()

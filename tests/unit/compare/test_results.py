"""From outcomes to rows, tables and files."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from elsa.compare.outcome import HOPS, Cost, Outcome, Point
from elsa.compare.results import Results, make_results
from elsa.compare.table import accuracy_table, cost_table, markdown, to_csv
from elsa.compare.write import write_results


def outcome(method: str, seed: int, accuracy: float, **more: object) -> Outcome:
    curve = [Point(2, 10.0, 10**6, accuracy - 0.2), Point(4, 20.0, 2 * 10**6, accuracy)]
    made = Outcome(
        method=method,
        seed=seed,
        rate=4e-3,
        accuracy=accuracy,
        loss=0.5,
        mean_device=accuracy,
        worst_device=accuracy - 0.1,
        samples=100,
        simulated_seconds=20.0,
        wall_seconds=5.0,
        bytes=dict.fromkeys(HOPS, 10**6),
        curve=curve,
    )
    return replace(made, **more)


@pytest.fixture
def results() -> Results:
    outcomes = [
        outcome("elsa", 0, 0.90),
        outcome("elsa", 1, 0.88),
        outcome("fedavg", 0, 0.89, bytes=dict.fromkeys(HOPS[:2], 5) | dict.fromkeys(HOPS[2:])),
        outcome("fedavg", 1, 0.80, bytes=dict.fromkeys(HOPS[:2], 5) | dict.fromkeys(HOPS[2:])),
    ]
    costs = {"elsa": Cost(9e7, 1e9, 3e9), "fedavg": None}
    remarks = {"fedavg": "1 of 3 seeds are missing"}
    return make_results(["fedavg", "elsa", "splitlora"], outcomes, costs, "fedavg", None, remarks)


def test_rows_hold_what_the_seeds_say(results: Results) -> None:
    fedavg, elsa = results.rows
    assert (fedavg.method, elsa.method) == ("fedavg", "elsa")
    assert results.target == 0.85  # 95 % of 0.89, to two digits
    assert elsa.accuracy.mean == pytest.approx(0.89)
    gap = elsa.differences["accuracy"]
    assert gap is not None
    assert gap.mean == pytest.approx(0.045)
    assert fedavg.differences["accuracy"] is None


def test_the_target_is_reached_where_an_evaluation_says_so(results: Results) -> None:
    fedavg, elsa = results.rows
    assert (elsa.reached, fedavg.reached) == (2, 1)
    assert elsa.rounds is not None
    assert (elsa.rounds.mean, elsa.seconds and elsa.seconds.mean) == (4, 20.0)
    assert "4 (1 of 2)" in cost_table(results)[1]


def test_hops_that_a_method_has_not_are_no_zeros(results: Results) -> None:
    titles, fedavg, elsa = cost_table(results)
    assert (fedavg[titles.index("edge up")], elsa[titles.index("edge up")]) == ("-", "1.0 MB")
    assert fedavg[titles.index("device memory")] == "-"
    assert elsa[titles.index("device memory")] == "90 MB"


def test_tables_have_a_cell_for_each_title(results: Results) -> None:
    for lines in (accuracy_table(results), cost_table(results)):
        assert {len(line) for line in lines} == {len(lines[0])}
        assert len(markdown(lines).splitlines()) == len(lines) + 1


def test_csv_has_a_line_a_run_and_empty_cells_for_what_is_not(results: Results) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(results))))
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("fedavg", "0"),
        ("fedavg", "1"),
        ("elsa", "0"),
        ("elsa", "1"),
    ]
    assert (rows[0]["edge_to_cloud"], rows[2]["edge_to_cloud"]) == ("", "1000000")
    assert float(rows[2]["accuracy"]) == 0.9


def test_files_are_whole_and_alike_each_time(results: Results, tmp_path: Path) -> None:
    files = write_results(tmp_path, results, {"machine": {}}, "elsa compare")
    first = [path.read_bytes() for path in files]
    assert [
        path.read_bytes()
        for path in write_results(tmp_path, results, {"machine": {}}, "elsa compare")
    ] == first
    held = json.loads((tmp_path / "compare.json").read_bytes())
    assert held["rows"][1]["accuracy"]["mean"] == pytest.approx(0.89)
    assert held["outcomes"][0]["curve"][0]["rounds"] == 2
    assert all(name in (tmp_path / "curves.svg").read_text("utf-8") for name in ("<svg", "</svg>"))

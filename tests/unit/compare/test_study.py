"""Cells that are there are read, others are run; folders of something else are refused."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from elsa.compare.cells import Cell, config_of, finished, prepare_base
from elsa.compare.processes import Ended, Job, Pool
from elsa.compare.study import FAILED, Question, Study, Watch
from elsa.config.load import load_config
from elsa.errors import ConfigError, Interrupted, RunError
from elsa.record.directory import RunDirectory
from elsa.record.manifest import Manifest
from elsa.record.metrics import RoundMetrics

QUIET = Watch(lambda _: None, lambda *_: None)
SMALL = ["federation.devices=4", "federation.rounds=2", "federation.edge_rounds=2"]


def pretend(study_out: Path, cell: Cell, accuracy: float, own: float = 0.5) -> None:
    """Write what a run of a cell leaves."""
    config = config_of(cell, study_out / "base.toml")
    held = config.model_dump(mode="json")
    facts: Any = ({}, {}, {}, {})
    manifest = Manifest("x", 0.0, cell.seed, held, "", *facts)
    row = RoundMetrics(0, 1.0, 8, 1.0, accuracy, own, own, None, None, 5, 6, 7, 8, 99, 2.0, 1.0, 10)
    hops = {"device_to_edge": 5, "edge_to_device": 6, "edge_to_cloud": 7, "cloud_to_edge": 8}
    summary = {
        "accuracy": accuracy,
        "accuracy_mean_device": own,
        "accuracy_worst_device": own,
        "samples": 8,
        "simulated_seconds": 2.0,
        "wall_seconds": 1.0,
        "bytes": hops,
    }
    with RunDirectory.create(cell.folder(study_out), manifest) as directory:
        directory.metrics.append(row)
        directory.write_summary(summary)


class Hands(Pool):
    """A pool that writes down jobs, and does them as told instead of starting processes."""

    def __init__(self, do: Callable[[Job], str], stop: Callable[[], bool] = lambda: False) -> None:
        super().__init__(2, 1, stop)
        self.do = do
        self.jobs: list[Job] = []

    def run(self, jobs: Sequence[Job], began: Any, ended: Any, tick: Any) -> None:
        for job in jobs:
            if self.stop():
                return
            began(job)
            tick()
            self.jobs.append(job)
            ended(Ended(job, self.do(job)))


def question(**more: Any) -> Question:
    return Question(**{"methods": ["fedavg", "elsa"], "seeds": [0, 1], "against": "fedavg"} | more)


def option(job: Job, key: str) -> str:
    return next(it.partition("=")[2] for it in job.arguments if it.startswith(f"{key}="))


def test_what_is_there_is_not_run_again(tmp_path: Path) -> None:
    study = Study(load_config(None, SMALL), question(), tmp_path)
    pretend(tmp_path, Cell("elsa", 0), 0.9)
    pretend(tmp_path, Cell("fedavg", 1), 0.8)
    hands = Hands(lambda _: "")
    study.run(hands, QUIET)
    names = [job.name for job in hands.jobs]
    assert names == ["cells/fedavg/seed-0", "cells/elsa/seed-1", "plan of fedavg", "plan of elsa"]
    assert [job.arguments[0] for job in hands.jobs] == ["run", "run", "plan", "plan"]
    results = study.results()
    assert [(it.method, it.seed) for it in results.outcomes] == [("fedavg", 1), ("elsa", 0)]
    assert "1 of 2 seeds are missing" in results.rows[0].remark
    assert [it.bytes["edge_to_cloud"] for it in results.outcomes] == [None, 7]
    assert [it.curve[0].rounds for it in results.outcomes] == [1, 2]


def test_a_run_that_was_begun_is_gone_on_with(tmp_path: Path) -> None:
    study = Study(load_config(None, SMALL), question(seeds=[0]), tmp_path)
    cell = Cell("elsa", 0)
    pretend(tmp_path, cell, 0.9)
    (cell.folder(tmp_path) / "summary.json").unlink()
    hands = Hands(lambda _: "")
    study.run(hands, QUIET)
    resumed = next(job for job in hands.jobs if job.name == "cells/elsa/seed-0")
    assert resumed.arguments == ["resume", str(cell.folder(tmp_path)), "--json"]


def test_what_failed_is_kept_and_left_alone_until_asked_for(tmp_path: Path) -> None:
    study = Study(load_config(None, SMALL), question(seeds=[0]), tmp_path)
    study.run(Hands(lambda job: "too small" if "fedavg" in job.name else ""), QUIET)
    assert study.failed["cells/fedavg/seed-0"] == "too small"
    again = Hands(lambda _: "")
    study.run(again, QUIET)
    assert "cells/fedavg/seed-0" not in [job.name for job in again.jobs]
    study.run(again, QUIET, retry=True)
    assert "cells/fedavg/seed-0" in [job.name for job in again.jobs]
    assert "cells/fedavg/seed-0" not in json.loads((tmp_path / FAILED).read_bytes())


def test_each_method_chooses_its_rate_on_rows_of_the_devices(tmp_path: Path) -> None:
    """Not on the test rows: there the other rate is better."""
    config = load_config(None, SMALL)
    study = Study(config, question(rates=(1e-3, 2e-3), seeds=[0]), tmp_path)

    def do(job: Job) -> str:
        kind, method, which = job.name.split("/") if "/" in job.name else ("", "", "")
        if kind == "tuning":
            rate = float(which.removeprefix("rate-"))
            best = {"fedavg": 1e-3, "elsa": 2e-3}[method]
            good = rate == best
            pretend(
                tmp_path, Cell(method, 100, rate, tuning=True), 0.9 - 0.5 * good, 0.5 + 0.1 * good
            )
        return ""

    hands = Hands(do)
    study.run(hands, QUIET)
    last = {job.name: job for job in hands.jobs if job.name.startswith("cells/")}
    assert option(last["cells/fedavg/seed-0"], "train.learning_rate") == "0.001"
    assert option(last["cells/elsa/seed-0"], "train.learning_rate") == "0.002"
    assert {option(job, "run.seed") for job in hands.jobs if "tuning/" in job.name} == {"100"}


def test_being_asked_to_stop_ends_it_and_notes_no_failure(tmp_path: Path) -> None:
    study = Study(load_config(None, SMALL), question(), tmp_path)
    asked: list[int] = []

    def do(_: Job) -> str:
        asked.append(1)
        return "Interrupted"

    with pytest.raises(Interrupted, match="the same command goes on"):
        study.run(Hands(do, lambda: bool(asked)), QUIET)
    assert study.failed == {}
    assert len(asked) == 1


def test_a_folder_of_another_comparison_is_refused(tmp_path: Path) -> None:
    Study(load_config(None, SMALL), question(), tmp_path)
    with pytest.raises(RunError, match=r"another config \(rounds = 2 before, rounds = 3 now"):
        Study(load_config(None, [*SMALL, "federation.rounds=3"]), question(), tmp_path)
    Study(load_config(None, [*SMALL, "run.threads=7"]), question(), tmp_path)  # changes no result
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="no comparison"):
        Study(load_config(None, SMALL), question(), tmp_path / "other")


def test_a_cell_of_other_settings_is_refused(tmp_path: Path) -> None:
    base = prepare_base(load_config(None, SMALL), tmp_path)
    pretend(tmp_path, Cell("elsa", 0), 0.9)
    assert finished(Cell("elsa", 0), base, tmp_path)
    with pytest.raises(RunError, match=r"learning_rate = 0.004 before, learning_rate = 0.001 now"):
        finished(Cell("elsa", 0, 1e-3), base, tmp_path)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"methods": ["fedavgg"]}, "did you mean fedavg"),
        ({"methods": ["elsa", "elsa"]}, "named twice"),
        ({"against": "splitlora"}, "--against splitlora: name one of"),
        ({"rates": (1e-3,), "tuning_seed": 1}, "--tuning-seed 1 is among the seeds"),
    ],
)
def test_impossible_questions_are_refused(tmp_path: Path, more: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Study(load_config(None, SMALL), question(**more), tmp_path / "out")


def test_a_setting_that_no_method_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of fedavg, elsa takes this"):
        Study(load_config(None, [*SMALL, "noise.ratio=0.5"]), question(), tmp_path / "out")


def test_processes_run_side_by_side_and_say_why_they_failed(tmp_path: Path) -> None:
    ended: list[Ended] = []
    pool = Pool(2, 1, lambda: False)
    jobs = [
        Job("methods", ["compare", "--list"], tmp_path / "deep" / "list.txt"),
        Job("bad", ["run", "--set", "no.such=1"]),
    ]
    pool.run(jobs, lambda _: None, ended.append, lambda: None)
    by_name = {it.job.name: it.error for it in ended}
    assert by_name["methods"] == ""
    assert "fedavg" in (tmp_path / "deep" / "list.txt").read_text("utf-8")
    assert "there is no such key" in by_name["bad"]


def test_a_process_is_asked_to_stop_and_waited_for() -> None:
    """It dies of the interrupt, long before it would end by itself."""
    began: list[float] = []
    pool = Pool(1, 1, lambda: bool(began))
    ended: list[Ended] = []

    def start(_: Job) -> None:
        began.append(time.monotonic())

    pool.run([Job("doctor", ["doctor"]), Job("never", [])], start, ended.append, lambda: None)
    assert [it.job.name for it in ended] == ["doctor"]
    assert ended[0].error

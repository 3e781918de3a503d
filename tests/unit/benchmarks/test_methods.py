"""The comparison of methods: what its cells have in common, what is kept of them, its numbers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from methods import Runner, Slice
from methods_cells import AGAINST, PARTS, RATES, SEEDS, TUNED_AS, TUNING_SEED, Part
from methods_kept import Kept
from methods_table import lowest_fifth, settings, verdict, worst_device, write_tables

from elsa.compare.cells import Cell, config_of
from elsa.compare.numbers import Difference
from elsa.compare.outcome import HOPS, Outcome
from elsa.compare.processes import Ended, Job, Pool
from elsa.config.printing import dump_toml
from elsa.config.schema import Config
from elsa.errors import RunError
from elsa.record import events
from elsa.record.directory import RunDirectory
from elsa.record.manifest import Manifest

TREC, TUNING = PARTS["trec-0.5"], PARTS["tune-trec"]
RATE = RATES[1]
OWN = {"device-0": (9, 10), "device-1": (12, 20), "device-2": (0, 3), "device-3": (10, 10)}
"""Right, and of how many."""


def outcome(method: str, seed: int, accuracy: float, rate: float = RATE) -> Outcome:
    return Outcome(
        method=method,
        seed=seed,
        rate=rate,
        accuracy=accuracy,
        loss=0.5,
        mean_device=accuracy,
        worst_device=0.0,
        samples=100,
        simulated_seconds=20.0,
        wall_seconds=5.0,
        bytes=dict.fromkeys(HOPS, 10**6),
        curve=[],
        devices=OWN,
    )


def put(kept: Kept, part: Part, cell: Cell, held: Outcome, **more: Any) -> Path:
    """Keep a result as `Kept.keep` does, of no run."""
    path = kept.out / "cells" / part.setting.name / f"{cell.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"poisoned": [], "cut": {"poisoned": [0, 0], "honest": [0, 0]}, "lost": 0}
    content = {"outcome": asdict(held), **facts, **more, "settings": part.setting.known_by(cell)}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """With learning rates chosen on TREC."""
    made = Kept(tmp_path / "out")
    for cell in TUNING.cells({}):
        assert cell.rate is not None
        own = 0.8 if cell.rate == RATE else 0.5
        put(made, TUNING, cell, outcome(cell.method, TUNING_SEED, own, cell.rate))
    return made


def steps(config: Config) -> int:
    """Local steps of all devices together, or of who has all rows."""
    shape = config.federation
    trainers = 1 if shape.pooled else shape.devices
    return shape.rounds * shape.edge_rounds * shape.steps * trainers


@pytest.mark.parametrize("part", PARTS.values(), ids=lambda it: it.name)
def test_methods_of_a_part_have_the_same_rows_and_budget(part: Part, tmp_path: Path) -> None:
    base = tmp_path / "base.toml"
    base.write_text(dump_toml(part.setting.config()), encoding="utf-8")
    configs = [config_of(Cell(name, 7), base) for name in (*part.methods, AGAINST)]
    same = {
        (
            it.data.model_dump_json(),
            it.partition.model_dump_json(),
            it.attack.model_dump_json(),
            it.model.model_dump_json(),
            it.adapter.model_dump_json(),
            it.train.model_dump_json(),
            it.federation.devices,
            it.run.seed,
            steps(it),
            it.federation.rounds / it.evaluate.every,
        )
        for it in configs
    }
    assert len(same) == 1
    assert {it.run.method for it in configs} == {*part.methods, AGAINST}


def test_every_method_has_as_many_tries_and_seeds_and_none_is_tuned_on_a_reported_seed() -> None:
    rates = dict.fromkeys((*TREC.methods, "elsa"), RATE)
    for part in PARTS.values():
        cells = part.cells(rates)
        counts = {name: sum(it.method == name for it in cells) for name in part.methods}
        assert set(counts.values()) == {len(RATES) if part.setting.tuning else len(SEEDS)}
        assert all((it.seed == TUNING_SEED) == it.tuning for it in cells)
        tuned = PARTS[f"tune-{part.setting.corpus.name}"]
        assert {TUNED_AS.get(name, name) for name in part.methods} <= {*tuned.methods}
    assert TUNING_SEED not in SEEDS
    names = list(PARTS)
    assert names[:4] == ["tune-trec", "trec-0.5", "trec-0.1", "trec-0.5-poisoned"]
    assert all(
        names.index(f"tune-{it.setting.corpus.name}") <= place
        for place, it in enumerate(PARTS.values())
    )


def test_numbers_of_devices_by_hand() -> None:
    held = outcome("elsa", 0, 0.9)
    assert worst_device(held) == 0.6  # the one of three rows is left out
    assert lowest_fifth(held) == 0.6
    six = {f"device-{n}": (10 + n, 20) for n in range(6)}
    assert lowest_fifth(replace(held, devices=six)) == pytest.approx((0.5 + 0.55) / 2)
    assert worst_device(replace(held, devices={})) is lowest_fifth(replace(held, devices={}))


@pytest.mark.parametrize(
    ("gap", "says"),
    [
        (None, "-"),
        (Difference(0.02, 0.01, 0.03, 3), "yes"),
        (Difference(-0.02, -0.03, -0.015, 3), "no"),
        (Difference(-0.005, -0.03, 0.02, 3), "yes, as far as so few seeds tell"),
        (Difference(-0.02, None, None, 1), "no, as far as so few seeds tell"),
    ],
)
def test_a_bound_is_met_by_the_mean_and_surely_by_the_interval(
    gap: Difference | None, says: str
) -> None:
    assert verdict(gap, -0.01) == says


def test_tables_of_some_cells_say_what_they_hold_and_what_is_missing(kept: Kept) -> None:
    for seed, ours, theirs in ((0, 0.90, 0.91), (1, 0.88, 0.90), (2, 0.86, 0.89)):
        put(kept, TREC, Cell("elsa", seed, RATE), outcome("elsa", seed, ours))
        put(kept, TREC, Cell(AGAINST, seed, RATE), outcome(AGAINST, seed, theirs))
    put(kept, TREC, Cell("splitlora", 1, RATE), outcome("splitlora", 1, 0.5))
    attacked = PARTS["trec-0.5-poisoned"]
    cut = {"poisoned": [3, 4], "honest": [1, 20]}
    put(kept, attacked, Cell("elsa", 1, RATE), outcome("elsa", 1, 0.84), cut=cut)
    (kept.out / "discussion.txt").write_text("## What this says\n", encoding="utf-8")
    write_tables(kept)
    text = (kept.out / "README.md").read_text("utf-8")
    # Differences -1, -2, -3: mean -2, half an interval 4.3027 / sqrt(3).
    assert "| TREC-6 | -2.00 (-4.48 to +0.48) | 3 | no, as far as so few seeds tell |" in text
    assert "| ELSA | -4.00 | 75 % | 5 % |" in text
    assert "SplitLoRA (2 of 3)" in text
    assert "FedAvg (3 of 3)" in text
    assert text.count("Not run yet.") == len(settings()) - 2
    assert f"| TREC-6 | FedAvg | 0.500 | 0.800 | 0.500 | {RATE:g} |" in text
    assert text.endswith("## What this says\n")
    held = json.loads((kept.out / "methods.json").read_bytes())
    assert held["settings"]["trec-0.5"]["rows"][0]["accuracy"]["mean"] == pytest.approx(0.9)
    assert (kept.out / "trec-0.5.svg").is_file()


def test_results_of_other_settings_are_refused(kept: Kept) -> None:
    cell = Cell("elsa", 0, RATE)
    path = put(kept, TREC, cell, outcome("elsa", 0, 0.9))
    assert kept.read(TREC.setting, cell) is not None
    with pytest.raises(RunError, match=f"learning_rate={RATE}, train.learning_rate={RATES[2]}"):
        kept.read(TREC.setting, Cell("elsa", 0, RATES[2]))
    path.unlink()
    assert kept.read(TREC.setting, cell) is None


class Hands(Pool):
    """A pool that does jobs as told instead of starting processes."""

    do: Callable[[Job], str]
    names: list[str]

    def run(self, jobs: Sequence[Job], began: Any, ended: Any, tick: Any) -> None:
        for job in jobs:
            began(job)
            self.names.append(job.name)
            ended(Ended(job, self.do(job)))


def leave(folder: Path, cell: Cell, base: Path) -> None:
    """Write what a run of a cell leaves: it has nine of ten rows right, and one device of two."""
    config = config_of(cell, base)
    manifest = Manifest("x", 0.0, cell.seed, config.model_dump(mode="json"), "", {}, {}, {}, {})
    summary = {
        "accuracy": 0.9,
        "accuracy_mean_device": 0.5,
        "accuracy_worst_device": 0.0,
        "samples": 8,
        "simulated_seconds": 2.0,
        "wall_seconds": 1.0,
        "bytes": dict.fromkeys(HOPS, 5),
    }
    with RunDirectory.create(folder, manifest) as directory:
        directory.events.append(events.Poisoned(0, "label-flip", ("device-1",)))
        for number, weight in ((0, 1.0), (1, 0.0)):
            name = f"device-{number}"
            directory.events.append(
                events.DeviceJudged(0, 0, name, 0, 0.1, 0.1, weight, weight, "")
            )
            directory.events.append(events.DeviceEvaluated(0, name, 5, 1))
            directory.events.append(events.DeviceEvaluated(1, name, 10, 10 - 10 * number))
        directory.write_summary(summary)


def test_a_slice_runs_so_many_keeps_what_ended_and_the_next_runs_the_rest(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = replace(TREC, methods=("fedavg", "elsa"))
    work, setting = tmp_path / "work", part.setting

    def do(job: Job) -> str:
        if not job.name.startswith("cells/"):
            return ""
        _, method, seed = job.name.split("/")
        if (method, seed) == ("fedavg", "seed-1"):
            return "out of memory"
        cell = Cell(method, int(seed.removeprefix("seed-")), RATE)
        leave(work / setting.name / job.name, cell, work / setting.name / "base.toml")
        return ""

    monkeypatch.setattr(Hands, "do", staticmethod(do), raising=False)
    monkeypatch.setattr(Hands, "names", [], raising=False)
    monkeypatch.setattr("methods.Pool", Hands)
    runner = Runner(kept, work)
    runner.run(part, Slice(3, 1, lambda: False, retry=False))
    cells = part.cells({"fedavg": RATE, "elsa": RATE})
    first = [f"cells/{it.name}" for it in cells[:3]]
    assert [it for it in Hands.names if "plan" not in it] == first
    result = kept.read(setting, cells[1])
    assert result is not None
    assert (result.outcome.method, result.outcome.rate) == ("elsa", RATE)
    assert result.outcome.devices == {"device-0": (10, 10), "device-1": (0, 10)}
    assert result.cut == {"poisoned": (1, 1), "honest": (0, 1)}
    assert not list(work.glob("*/cells/*/*/manifest.json"))
    Hands.names.clear()
    runner.run(part, Slice(9, 1, lambda: False, retry=False))
    rest = [f"cells/{it.name}" for it in cells[3:]]
    assert [it for it in Hands.names if "plan" not in it] == rest  # what failed is left alone
    assert [it.name for it in runner.due(part)] == ["fedavg/seed-1"]


def test_a_result_is_kept_with_what_its_method_changes_alone() -> None:
    part = PARTS["trec-0.5"]
    known = {name: part.setting.known_by(Cell(name, 0, 0.001)) for name in ("fedavg", "elsa")}
    assert "train.in_flight=1" not in known["fedavg"]  # as it would be anyway
    assert {"split.layout=whole", "run.method=fedavg"} <= set(known["fedavg"])
    assert "cluster.trust=True" in known["elsa"]

"""Devices of several tasks: shared adapters, a head for each task, averaged among its own only."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from elsa.config.schema import Config, Rows
from elsa.core.score import Tally
from elsa.engine.build import build_federation, digests_of, open_sources
from elsa.engine.export import export_run
from elsa.engine.run import resume, run
from elsa.engine.scores import evaluated
from elsa.engine.simulate import Simulation
from elsa.engine.tasks import devices_of
from elsa.errors import Interrupted, ProtocolError
from elsa.model.adapters import head_of, of_task
from elsa.record.checkpoint import load_checkpoint
from elsa.record.metrics import read_metrics
from elsa.wire.layers import Tap
from elsa.wire.messages import EdgeUpdate, LocalPlan, Ready, Update


def two_tasks(config: Config, folder: Path) -> Config:
    """The config with two tasks: all questions, and those of three kinds, from files."""
    with Path(config.data.path).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["kind"] for row in rows})[:3]
    few = folder / "few.csv"
    with few.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["question", "kind"])
        writer.writeheader()
        writer.writerows(row for row in rows if row["kind"] in names)
    shared = config.data.model_dump(include=set(Rows.model_fields))
    tasks = (
        shared | {"name": "all", "share": 2.0},
        shared | {"name": "few", "path": str(few), "limit": 40},
    )
    return Config.model_validate(config.model_dump() | {"task": tasks})


@pytest.fixture(scope="module")
def mixed(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Devices 0 and 1 have six classes, device 2, on the first edge, has three."""
    return two_tasks(make("partition.kind=iid"), tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def parts(mixed: Config) -> Any:
    return open_sources(mixed)


@pytest.fixture(scope="module")
def done(mixed: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(mixed, out=tmp_path_factory.mktemp("runs") / "mixed").directory


def heads(adapters: Any) -> set[str]:
    return {head_of(name) for name in adapters}


def test_each_device_gets_and_sends_the_shared_adapters_and_its_own_head(
    mixed: Config, parts: Any
) -> None:
    tap = Tap()
    federation = build_federation(mixed, parts, [tap])
    shapes = {name: tuple(value.shape) for name, value in federation.cloud.adapters.items()}
    assert heads(shapes) == {"", "all", "few"}
    assert (shapes["head.all.weight"][0], shapes["head.few.weight"][0]) == (6, 3)
    Simulation(federation).train_round()
    seen = {(it.link.below, type(it.message)): it.message for it in tap.frames}
    for device, task in (("device-0", "all"), ("device-1", "all"), ("device-2", "few")):
        assert seen[device, Ready].head == task
        for kind in (LocalPlan, Update):
            assert heads(seen[device, kind].adapters) == {"", task}
    told = [it.message for it in tap.frames if isinstance(it.message, EdgeUpdate)]
    assert [heads(it.adapters) for it in told] == [{"", "all", "few"}, {"", "all"}]
    assert [{each.head for each in it.heads} for it in told] == [{"all", "few"}, {"all"}]


def test_a_head_is_the_mean_of_its_own_devices_and_the_rest_that_of_all(
    mixed: Config, parts: Any
) -> None:
    federation_config = mixed.federation.model_copy(update={"edge_rounds": 1})
    tap = Tap()
    federation = build_federation(
        mixed.model_copy(update={"federation": federation_config}), parts, [tap]
    )
    Simulation(federation).train_round()
    sent = {it.link.below: it.message for it in tap.frames if isinstance(it.message, Update)}
    assert len({it.rows for it in sent.values()}) > 1

    def mean(name: str, devices: list[str]) -> Tensor:
        rows = sum(sent[it].rows for it in devices)
        return sum(sent[it].rows / rows * sent[it].adapters[name].double() for it in devices)

    by_task = {"": list(sent), "all": ["device-0", "device-1"], "few": ["device-2"]}
    for name, value in federation.cloud.adapters.items():
        if name in sent["device-0"].adapters or head_of(name):
            expected = mean(name, by_task[head_of(name)])
            assert torch.allclose(value.double(), expected, atol=1e-6), name


def test_a_head_of_no_task_of_the_run_is_refused(mixed: Config, parts: Any) -> None:
    federation = build_federation(mixed, parts)
    edge, order = federation.edges["edge-0"], federation.cloud.orders()["edge-0"]
    edge.open(order)
    for head in ("", "other"):
        with pytest.raises(ProtocolError, match="all, few"):
            edge.handle("device-0", Ready(0, 0, 1, 1, head=head))


def test_bottom_and_trunk_are_shared_and_tops_are_not(mixed: Config, parts: Any) -> None:
    federation = build_federation(mixed, parts)
    first, second, third = (it.segments for it in federation.devices.values())
    assert first is second
    assert first.bottom is third.bottom
    assert first.top is not third.top
    one, other = (task.model for task in parts.tasks)
    assert one.trunk(first.split) is other.trunk(first.split)
    assert [it.name for it in federation.testers["edge-0"]] == ["test-all", "test-few"]


def test_digests_are_of_every_task(parts: Any) -> None:
    rows = digests_of(parts)[1]
    assert rows.keys() == {"all/train", "all/test", "few/train", "few/test"}
    assert len(set(rows.values())) == 4


def test_the_record_has_each_task_and_the_mean(done: Path) -> None:
    events = [json.loads(line) for line in (done / "events.jsonl").read_text().splitlines()]
    last = {it["task"]: it["accuracy"] for it in events if it["kind"] == "task_evaluated"}
    summary = json.loads((done / "summary.json").read_bytes())
    assert summary["tasks"] == last
    assert last.keys() == {"all", "few"}
    assert summary["accuracy"] == pytest.approx(sum(last.values()) / 2)
    rows = read_metrics(done / "metrics.csv")
    assert rows[-1].accuracy_by_task == last
    assert rows[-1].accuracy == summary["accuracy"]


def test_scores_of_all_are_means_over_tasks_and_testers_are_no_devices() -> None:
    counted = {
        "d0": Tally(10, 2, 5.0),
        "test-a": Tally(100, 50, 100.0),
        "test-b": Tally(10, 9, 5.0),
        "test-c": Tally(),
    }
    testers = {task: f"test-{task}" for task in "abc"}
    each, of_all = evaluated(3, counted, testers, causal=False)
    assert [(it.task, it.accuracy, it.loss) for it in each] == [("a", 0.5, 1.0), ("b", 0.9, 0.5)]
    assert (of_all.accuracy, of_all.loss) == (pytest.approx(0.7), 0.75)
    assert of_all.accuracy_mean_device == of_all.accuracy_worst_device == 0.2


def test_every_task_is_exported_with_one_adapter_and_its_own_head(
    done: Path, parts: Any, tmp_path: Path
) -> None:
    trained = {
        name.removeprefix("global/"): value
        for name, value in load_checkpoint(done).tensors.items()
        if name.startswith("global/")
    }
    family = parts.model.checkpoint.family
    for folder in (done / "adapter", export_run(done, tmp_path / "out")):
        assert {it.name for it in folder.iterdir()} == {"all", "few"}
        for task, classes in (("all", 6), ("few", 3)):
            saved = load_file(folder / task / "adapter_model.safetensors")
            expected = of_task(trained, family, task)
            assert saved.keys() == expected.keys()
            assert all(torch.equal(saved[name], expected[name]) for name in saved)
            assert torch.equal(
                saved["base_model.model.classifier.weight"], trained[f"head.{task}.weight"]
            )
            assert len(json.loads((folder / task / "labels.json").read_text())) == classes


def test_resumed_equals_uninterrupted(
    mixed: Config, done: Path, traces: Any, tmp_path: Path
) -> None:
    heard: list[str] = []
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        run(
            mixed,
            out=out,
            listen=lambda event: heard.append(event.kind),
            stop=lambda: heard.count("device_finished") >= 8,
        )
    resume(out)
    assert traces(out)["checkpoint"] == traces(done)["checkpoint"]


def test_a_plain_run_names_its_head_as_before(make: Any, sources: Any) -> None:
    federation = build_federation(make(), sources)
    assert heads(federation.cloud.adapters) == {""}
    assert "base_model.model.classifier.weight" in federation.cloud.adapters
    assert [task.name for task in sources.tasks] == [""]
    assert sources.tasks[0].seed(7) == 7
    assert replace(sources.tasks[0], name="x").seed(7) != 7


@given(st.lists(st.floats(0.1, 50), min_size=1, max_size=6), st.integers(0, 40))
def test_devices_are_shared_out_in_order_each_once_and_nearly_in_proportion(
    shares: list[float], more: int
) -> None:
    tasks = tuple({"name": f"t{number}", "share": it} for number, it in enumerate(shares))
    names = [f"d{number}" for number in range(len(shares) + more)]
    config = Config.model_validate(
        {"task": tasks, "federation": {"devices": len(names), "edges": 1}}
    )
    found = devices_of(config, names)
    assert [name for members in found for name in members] == names
    assert all(found)
    for members, share in zip(found, shares, strict=True):
        quota = len(names) * share / sum(shares)
        assert len(members) < quota + 1 or len(members) == 1

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from elsa.errors import RunError
from elsa.record.directory import RunDirectory, read_summary
from elsa.record.events import CheckpointSaved, RunStarted
from elsa.record.log import read_events
from elsa.record.manifest import FORMAT, Manifest, read_manifest

MANIFEST = Manifest(
    name="quickstart",
    created=1,
    seed=3,
    config={"run": {"seed": 3}, "adapter": {"targets": ("query",), "alpha": 16.0}},
    config_toml="[run]\nseed = 3\n",
    versions={"elsa": "0.1.0"},
    machine={"cores": 2, "avx512_bf16": True},
    model={"model.safetensors": "ab"},
    data={"trec.txt": "cd"},
)

HOLD = """
import sys
from pathlib import Path
from elsa.record.directory import RunDirectory
run = RunDirectory.open(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_a_new_run_has_its_files_and_its_manifest_is_read_back(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "deep" / "run", MANIFEST) as run:
        names = {entry.name for entry in run.path.iterdir()}
        assert names == {"manifest.json", "events.jsonl", "metrics.csv", "checkpoint", "lock"}
        read = read_manifest(run.path)
        assert read == run.manifest
        assert read.digest() == run.manifest.digest()
        assert (read.name, read.seed, read.format) == ("quickstart", 3, FORMAT)
        assert read.config["adapter"] == {"targets": ["query"], "alpha": 16.0}
    with RunDirectory.open(run.path) as again:
        assert again.manifest == read


def test_runs_of_one_name_are_numbered(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        with RunDirectory.create_numbered(tmp_path / "runs", "mine", MANIFEST) as run:
            names.append(run.path.name)
    assert names == ["mine", "mine-2", "mine-3"]


def test_a_named_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="is not empty"):
        RunDirectory.create(tmp_path, MANIFEST)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(RunError, match="cannot be made"):
        RunDirectory.create(tmp_path / "thesis.txt", MANIFEST)


def test_a_named_folder_that_holds_a_run_is_refused_with_the_way_on(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", MANIFEST).close()
    with pytest.raises(RunError, match=r"holds a run already; .*elsa resume"):
        RunDirectory.create(tmp_path / "run", MANIFEST)


def test_what_is_no_run_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        RunDirectory.open(tmp_path / "absent")
    with pytest.raises(RunError, match="is no run directory"):
        RunDirectory.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "format None"),
        ('{"format": 99}', "written in format 99, this elsa reads format 2"),
        ('{"format": 2, "name": "x"}', "is damaged: missing or of the wrong type: created, seed"),
    ],
)
def test_a_damaged_or_foreign_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    RunDirectory.create(tmp_path / "run", MANIFEST).close()
    (tmp_path / "run" / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=message):
        RunDirectory.open(tmp_path / "run")


def test_a_run_in_use_is_refused_with_the_process_and_free_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "run"
    RunDirectory.create(path, MANIFEST).close()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(RunError, match=f"in use by process {holder.pid};"):
            RunDirectory.open(path)
        os.kill(holder.pid, signal.SIGKILL)
    RunDirectory.open(path).close()


def test_a_run_is_used_once_at_a_time_within_a_process_too(tmp_path: Path) -> None:
    with (
        RunDirectory.create(tmp_path / "run", MANIFEST) as run,
        pytest.raises(RunError, match=f"in use by process {os.getpid()};"),
    ):
        RunDirectory.open(run.path)


def test_a_failed_opening_lets_go_of_the_lock(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", MANIFEST).close()
    (tmp_path / "run" / "events.jsonl").unlink()
    (tmp_path / "run" / "events.jsonl").mkdir()
    with pytest.raises(RunError, match="cannot be opened"):
        RunDirectory.open(tmp_path / "run")
    (tmp_path / "run" / "events.jsonl").rmdir()
    RunDirectory.open(tmp_path / "run").close()


def test_rewinding_removes_what_came_after(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", MANIFEST) as run:
        first = RunStarted(0, rounds=3, devices=2, edges=1)
        run.events.append(first)
        offsets = run.offsets()
        run.events.append(CheckpointSaved(0))
        run.rewind(offsets)
        assert [entry.event for entry in read_events(run.path / "events.jsonl")] == [first]
        run.rewind()
        assert read_events(run.path / "events.jsonl") == []


def test_leftovers_of_a_killed_process_are_removed_on_opening(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", MANIFEST).close()
    (tmp_path / "run" / ".summary.json.123.partial").write_text("{")
    (tmp_path / "run" / ".adapter.123.partial").mkdir()
    (tmp_path / "run" / "checkpoint" / ".round-000003.123.partial").write_text("half")
    with RunDirectory.open(tmp_path / "run") as run:
        assert not list(run.path.rglob(".*"))


def test_a_summary_is_strict_json_even_when_the_run_diverged(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", MANIFEST) as run:
        assert read_summary(run.path) is None
        run.write_summary({"loss": math.nan, "bytes": {"device_to_edge": 3}, "rounds": 2})
        assert read_summary(run.path) == {
            "loss": None,
            "bytes": {"device_to_edge": 3},
            "rounds": 2,
        }
        json.loads((run.path / "summary.json").read_text())
        (run.path / "summary.json").write_text("{")
        with pytest.raises(RunError, match="is damaged"):
            read_summary(run.path)


def test_reading_and_writing_a_run_needs_no_torch() -> None:
    code = (
        "import sys; import elsa.record.directory, elsa.record.log, elsa.record.metrics;"
        "sys.exit(bool({'torch', 'numpy', 'tensorboard'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

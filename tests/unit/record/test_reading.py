"""Run directories that are not as they should be, read for looking at them."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elsa.errors import RunError
from elsa.record import events
from elsa.record.behaviour import LARGEST
from elsa.record.directory import RunDirectory
from elsa.record.manifest import Manifest
from elsa.record.reading import read_run

MANIFEST = Manifest("run", 1.0, 0, {"run": {"seed": 0}}, "", {}, {}, {}, {})
FILE = "clusters/round-000000.npz"
ARRAYS: dict[str, Any] = {
    "devices": np.array(["a", "b"]),
    "labels": np.array([0, 1]),
    "plane": np.array([[0.0, 1.0], [1.0, 0.0]]),
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with a clustering and a plan."""
    with RunDirectory.create(tmp_path / "run", MANIFEST) as made:
        made.events.append(events.RunStarted(0, 1, 2, 1))
        made.write_arrays(FILE, ARRAYS)
        made.events.append(events.Clustered(0, 2, 0, 0, FILE))
        made.write_plan({"devices": []})
        made.write_summary({"loss": 1.0})
    return made.path


def test_whole_run_is_read_without_notes(run: Path) -> None:
    record = read_run(run)
    assert record.notes == ()
    assert len(record.events) == 2
    assert record.clusterings[0].devices == ("a", "b")
    assert record.clusterings[0].plane == ((0.0, 1.0), (1.0, 0.0))
    assert record.plan == {"devices": []}
    assert record.summary == {"loss": 1.0}
    assert record.audit is None


def test_reading_takes_no_lock_and_changes_nothing(run: Path) -> None:
    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in run.rglob("*")}

    with RunDirectory.open(run):
        before = state()
        read_run(run)
        assert state() == before


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff", b"{}", b'{"format": 99}', b"[1]", b"[" * 100_000]
)
def test_without_a_manifest_there_is_no_run(run: Path, content: bytes) -> None:
    (run / "manifest.json").write_bytes(content)
    with pytest.raises(RunError, match="run"):
        read_run(run)


@pytest.mark.parametrize("name", ["summary.json", "plan.json", "audit/audit.json"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[1]", b"[" * 100_000])
def test_damaged_table_is_noted_and_the_rest_is_read(run: Path, name: str, content: bytes) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_bytes(content)
    record = read_run(run)
    assert len(record.notes) == 1
    assert name in record.notes[0]
    assert len(record.events) == 2


def test_lines_that_are_no_events_are_counted_and_left_out(run: Path) -> None:
    lines = (run / "events.jsonl").read_bytes().splitlines()
    new = b'{"time": 1, "kind": "of_next_year", "round": 3}'
    half = b'{"time": 1, "kind": "interr'
    (run / "events.jsonl").write_bytes(b"\n".join([lines[0], new, b"{}", lines[1], half]))
    record = read_run(run)
    assert len(record.events) == 2
    assert len(record.notes) == 1
    assert "2 lines cannot be read" in record.notes[0]
    assert "line 2" in record.notes[0]


@pytest.mark.parametrize(
    "arrays",
    [
        {"labels": np.array([0])},
        {"plane": np.array([[np.nan, 0.0], [0.0, 0.0]])},
        {"plane": np.zeros((2, 3))},
        {"devices": np.array([{"a": 1}, {}], dtype=object)},
    ],
    ids=("lengths", "nan", "space", "pickle"),
)
def test_clusters_that_make_no_sense_are_noted(run: Path, arrays: dict[str, Any]) -> None:
    np.savez(run / FILE, **(ARRAYS | arrays))
    record = read_run(run)
    assert record.clusterings == ()
    assert "is damaged" in record.notes[0]


def test_clusters_that_unpack_to_too_much_are_not_opened(run: Path) -> None:
    with zipfile.ZipFile(run / FILE, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("devices.npy", bytes(LARGEST + 1))
    assert "larger than any" in read_run(run).notes[0]


def test_clusters_are_looked_for_in_the_run_alone(run: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "elsewhere.npz", **ARRAYS)
    (run / FILE).unlink()
    text = (run / "events.jsonl").read_text("utf-8")
    (run / "events.jsonl").write_text(text.replace(FILE, "../elsewhere.npz"), "utf-8")
    record = read_run(run)
    assert record.clusterings == ()
    assert FILE in record.notes[0]

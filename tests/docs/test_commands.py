"""Every command that the README and the docs name is run, on less text and fewer rounds."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SMALL = [
    "data.limit=240",
    "federation.devices=3",
    "federation.rounds=1",
    "federation.edge_rounds=1",
    "federation.local_steps=1",
    "partition.min_rows=4",
    "run.threads=1",
]
BIN = Path(sys.executable).parent


def commands() -> list[str]:
    """The commands in indented blocks of all pages, in order, comments dropped."""
    lines = [line for page in PAGES for line in page.read_text(encoding="utf-8").splitlines()]
    shown = [line for line in lines if re.match(r"    (elsa|make|python) ", line)]
    return [line.split(" #")[0].strip() for line in shown]


def run(line: str, folder: Path) -> str:
    """Run a documented command in a folder; its standard output."""
    command, _, target = line.partition(" > ")
    words = shlex.split(command)
    if words[1] in ("run", "audit") and "--print-config" not in words:
        words += [part for setting in SMALL for part in ("--set", setting)]
    if words[1] == "audit":
        words += ["--texts", "8"]
    words = [str(BIN / words[0]), *words[1:]]
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    if target:
        (folder / target).write_text(done.stdout, encoding="utf-8")
    return done.stdout


@pytest.mark.xdist_group("real-model")
def test_elsa_commands_run_in_the_order_they_are_shown(tmp_path: Path) -> None:
    shown = [line for line in commands() if line.startswith("elsa ")]
    assert {line.split()[1] for line in shown} >= {"run", "resume", "export", "doctor"}
    for line in dict.fromkeys(shown):
        run(line, tmp_path)
    assert (tmp_path / "runs/quickstart/adapter/adapter_model.safetensors").is_file()
    assert (tmp_path / "merged/config.json").is_file()


def test_make_targets_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = {line.split()[1] for line in commands() if line.startswith("make ")}
    assert {"run", "test"} <= named <= set(targets)


def test_scripts_named_in_the_docs_exist() -> None:
    for page in PAGES:
        for path in re.findall(
            r"`?((?:src|docs|examples|benchmarks|tests|proto)/[\w./-]+)", page.read_text("utf-8")
        ):
            assert (ROOT / path.rstrip(".")).exists(), f"{page.name} names {path}"


def test_scripts_take_the_options_they_are_shown_with() -> None:
    # Read, not run: two dozen scripts that each import torch would take two minutes.
    shown = [shlex.split(line) for line in commands() if line.startswith("python ")]
    assert shown
    for _, script, *options in shown:
        source = (ROOT / script).read_text(encoding="utf-8")
        for option in options:
            known = f'add_argument("{option}"' in re.sub(r"\(\s+", "(", source)
            assert known or not option.startswith("--"), f"{script} has no {option}"


@pytest.mark.xdist_group("real-model")
def test_example_runs(tmp_path: Path) -> None:
    script = ROOT / "examples/quickstart.py"
    assert len(script.read_text(encoding="utf-8").splitlines()) < 50
    done = subprocess.run(
        [sys.executable, script, *SMALL], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert list(tmp_path.glob("runs/quickstart/adapter/adapter_config.json"))

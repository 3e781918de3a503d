"""Every command that the README and the docs show is run, on less text and fewer rounds.

A command is a line of an indented or fenced block that begins with elsa, make or python. A comment
before a fenced block says what it is besides: "several machines" for what no test can run, or
"file: NAME" for a file that the person writes.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from elsa.cli.main import app, main
from elsa.config.load import load_config
from elsa.config.printing import default_toml

ROOT = Path(__file__).parents[2]
FIRST = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs/tutorial.md"]
PAGES = list(dict.fromkeys([*FIRST, *sorted((ROOT / "docs").rglob("*.md"))]))
SMALL = [
    "data.limit=240",
    "federation.devices=3",
    "federation.rounds=1",
    "federation.edge_rounds=1",
    "federation.local_steps=1",
    "partition.min_rows=4",
    "run.threads=1",
]
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?(?P<fence>```+)(?P<kind>\w*)\n(?P<body>.*?)^(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)
COMMAND = re.compile(r"(elsa|make|python) ")


def shown(several_machines: bool = False) -> list[str]:
    """The commands of all pages in order, comments dropped; or those for several machines."""
    found = []
    for page in PAGES:
        text = re.sub(r"\\\n +", "", page.read_text(encoding="utf-8"))
        if not several_machines:
            indented = re.findall(r"^    (.*)$", BLOCK.sub("", text), re.MULTILINE)
            found += [line for line in indented if COMMAND.match(line)]
        for block in BLOCK.finditer(text):
            if (block["mark"] == "several machines") == several_machines:
                found += [line for line in block["body"].splitlines() if COMMAND.match(line)]
    return [line.split(" #")[0].strip() for line in found]


def files() -> dict[str, str]:
    """What the pages ask a person to write, by name."""
    blocks = [it for page in PAGES for it in BLOCK.finditer(page.read_text(encoding="utf-8"))]
    marked = [(it["mark"] or "", it["body"]) for it in blocks]
    return {mark[6:]: body for mark, body in marked if mark.startswith("file: ")}


def run(line: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Run a documented command in this folder and, where it is elsa, this process."""
    command, _, target = line.partition(" > ")
    words = shlex.split(command)
    if words[0] == "python":
        subprocess.run([sys.executable, *words[1:]], check=True, timeout=100)
        return
    if "--methods" in words and line != COMPARED:
        words = [*words, "--help"]  # many runs: only that the options are known
    elif "--methods" in words:
        words = [*words[: words.index("--seeds") + 2], "--jobs", "1"]
    if words[1] in ("run", "audit", "compare") and not {"--print-config", "--help"} & set(words):
        words += [part for setting in SMALL for part in ("--set", setting)]
    if words[1] == "audit":
        words += ["--texts", "8"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    told, said = capsys.readouterr()
    assert not ended.value.code, f"{line}\n{said}"
    if target:
        Path(target).write_text(told, encoding="utf-8")


COMPARED = "elsa compare my.toml --methods fedavg splitlora elsa --seeds 0 1 2"
LONG = ("compare", "audit")
"""Commands that take a minute or more; they need nothing but a config, and run on their own."""


def elsa_lines(*, long: bool) -> list[str]:
    lines = [line for line in shown() if line.split()[0] == "elsa" or line.split()[1] in files()]
    lines = [line for line in lines if "--engine ray" not in line]  # tests/deploy/test_ray.py
    return [line for line in dict.fromkeys(lines) if (line.split()[1] in LONG) == long]


def test_commands_run_in_the_order_they_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    lines = elsa_lines(long=False)
    assert {line.split()[1] for line in lines} >= {"run", "resume", "export", "report", "doctor"}
    for line in lines:
        run(line, monkeypatch, capsys)
    for name in (
        *("runs/quickstart/adapter/adapter_model.safetensors", "runs/quickstart/report.html"),
        *("merged/config.json", "spam-filter/config.json", "both.html"),
    ):
        assert (tmp_path / name).is_file(), name


@pytest.mark.parametrize("line", elsa_lines(long=True))
def test_long_command_runs(
    line: str,
    bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = [f"model.path={bert}", "model.max_tokens=32", "wire.preset=exact"]
    monkeypatch.setitem(globals(), "SMALL", [*SMALL, *tiny])
    (tmp_path / "my.toml").write_text(default_toml(), encoding="utf-8")
    run(line, monkeypatch, capsys)


def test_commands_have_the_options_they_are_shown_with() -> None:
    known: Any = get_command(app)
    lines = shown() + shown(several_machines=True)
    assert COMPARED in lines
    assert {"edge", "device", "cloud"} <= {line.split()[1] for line in lines}
    for line in lines:
        program, name, *words = shlex.split(line)
        if program == "elsa":
            options = {
                option for parameter in known.commands[name].params for option in parameter.opts
            }
            assert {word for word in words if word.startswith("--")} <= options, line


def test_settings_shown_in_the_docs_can_be_loaded(tmp_path: Path) -> None:
    blocks = [
        (page.name, it["body"])
        for page in PAGES
        for it in BLOCK.finditer(page.read_text(encoding="utf-8"))
        if it["kind"] == "toml"
    ]
    assert len(blocks) >= 3
    for number, (_, text) in enumerate(blocks):
        path = tmp_path / f"{number}.toml"
        path.write_text(text, encoding="utf-8")
        load_config(path)


def test_make_targets_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = {line.split()[1] for line in shown() if line.startswith("make ")}
    assert {"run", "test"} <= named <= set(targets)


def test_scripts_named_in_the_docs_exist() -> None:
    for page in PAGES:
        for path in re.findall(
            r"`?((?:src|docs|examples|benchmarks|tests|proto)/[\w./-]+)", page.read_text("utf-8")
        ):
            assert (ROOT / path.rstrip(".")).exists(), f"{page.name} names {path}"


def test_scripts_take_the_options_they_are_shown_with() -> None:
    # Read, not run: two dozen scripts that each import torch would take two minutes.
    lines = [shlex.split(line) for line in shown() if line.startswith("python ")]
    assert lines
    for _, script, *options in lines:
        if script in files():
            continue
        source = (ROOT / script).read_text(encoding="utf-8")
        for option in options:
            known = f'add_argument("{option}"' in re.sub(r"\(\s+", "(", source)
            assert known or not option.startswith("--"), f"{script} has no {option}"


def test_example_runs(tmp_path: Path) -> None:
    script = ROOT / "examples/quickstart.py"
    assert len(script.read_text(encoding="utf-8").splitlines()) < 50
    done = subprocess.run(
        [sys.executable, script, *SMALL], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert list(tmp_path.glob("runs/quickstart/adapter/adapter_config.json"))

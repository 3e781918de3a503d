import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from elsa.config.load import load_config
from elsa.config.printing import dump_toml
from elsa.config.schema import Config
from elsa.engine import run as engine
from elsa.errors import Interrupted
from elsa.record.directory import read_summary

Elsa = Callable[..., Any]
ESCAPE = "\x1b"

LIGHT = """
import contextlib, io, sys
from elsa.cli.main import main

for words in (["--help"], ["run", "--help"], ["report", "--help"],
              ["run", "--print-config"], ["run", "--set", "x=1"]):
    sys.argv = ["elsa", *words]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main()
print(sorted({"torch", "transformers", "peft", "datasets", "pandas"} & sys.modules.keys()))
"""

LEAN = """
import contextlib, io, sys
from elsa.cli.main import main

sys.argv = ["elsa", "run", "mine.toml"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main()
assert "torch" in sys.modules
print(sorted({"torch._inductor", "sympy", "scipy", "matplotlib"} & sys.modules.keys()))
"""


def one_error(ended: Any, kind: str) -> str:
    """The message of a command that refused: one error, no traceback, nothing on the output."""
    assert ended.status == 1
    assert ended.told == ""
    assert ended.said.startswith(f"{kind}: ")
    assert "Traceback" not in ended.said
    return str(ended.said)


def test_help_and_config_errors_come_without_the_heavy_packages() -> None:
    light = subprocess.run(
        (sys.executable, "-c", LIGHT), capture_output=True, text=True, timeout=300, check=True
    )
    assert light.stdout == "[]\n"
    assert "ConfigError" in light.stderr


def test_run_needs_no_compiler_and_no_plots(make: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(dump_toml(make()), encoding="utf-8")
    lean = subprocess.run(
        (sys.executable, "-c", LEAN),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert lean.stdout == "[]\n", lean.stderr
    assert (tmp_path / "runs").is_dir()


@pytest.mark.parametrize("command", ["run", "resume", "export", "audit", "report", "doctor"])
def test_help_names_every_command(command: str, elsa: Elsa) -> None:
    assert command in elsa("--help").told
    assert elsa(command, "--help").status == 0


def test_printed_config_is_the_default(elsa: Elsa, tmp_path: Path) -> None:
    printed = elsa("run", "--print-config")
    assert printed.status == 0
    assert "# " in printed.told
    (tmp_path / "mine.toml").write_text(printed.told, encoding="utf-8")
    assert load_config(tmp_path / "mine.toml") == Config()


def test_unknown_key_is_named_with_its_nearest(elsa: Elsa) -> None:
    said = one_error(elsa("run", "--set", "federation.devises=3"), "ConfigError")
    assert "federation.devises" in said
    assert "did you mean federation.devices?" in said


def test_every_wrong_setting_is_told_at_once(elsa: Elsa) -> None:
    wrong = ("--set", "train.batch_size=none", "--set", "split.bottom=0")
    said = one_error(elsa("run", *wrong), "ConfigError")
    assert "2 settings" in said
    assert "train.batch_size" in said
    assert "split.bottom" in said


def test_config_that_is_not_there_is_named(elsa: Elsa) -> None:
    said = one_error(elsa("run", "nowhere.toml"), "ConfigError")
    assert "nowhere.toml: there is no such file" in said
    assert "--print-config" in said


@pytest.mark.parametrize(
    "words", [("fly",), ("run", "--fast"), ("resume",), ("run", "a.toml", "b.toml")]
)
def test_command_line_that_cannot_be_read_has_a_status_of_its_own(
    words: tuple[str, ...], elsa: Elsa
) -> None:
    ended = elsa(*words)
    assert ended.status == 2
    assert ended.said


@pytest.mark.parametrize("command", ["resume", "export", "report"])
def test_folder_that_is_no_run_is_refused(command: str, elsa: Elsa, tmp_path: Path) -> None:
    said = one_error(elsa(command, tmp_path / "nowhere"), "RunError")
    assert "does not exist" in said
    assert "is no run directory" in one_error(elsa(command, tmp_path), "RunError")


def test_json_is_the_summary_alone(command: Any) -> None:
    assert json.loads(command.told) == read_summary(command.directory)


def test_output_of_a_log_is_plain_lines(command: Any) -> None:
    assert ESCAPE not in command.told + command.said
    assert "\r" not in command.said
    first, *rounds = command.said.splitlines()
    assert first == "3 devices, 2 edges, 2 rounds"
    assert [line.split("  ")[0] for line in rounds] == ["round 1/2", "round 2/2"]
    assert all("accuracy" in line and "devices-edges" in line for line in rounds)


def test_run_tells_its_result_and_where_it_lies(
    elsa: Elsa, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(dump_toml(make()), encoding="utf-8")
    words = ("run", "mine.toml", "--set", "federation.rounds=1", "--set", "run.name=[b]")
    one_error(elsa(*words), "ConfigError")  # so no markup comes from a name
    ended = elsa(*words[:-1], "run.name=mine")
    assert ended.status == 0
    assert "test accuracy" in ended.told
    assert "run      runs/mine\n" in ended.told
    assert "adapter  runs/mine/adapter\n" in ended.told
    assert ESCAPE not in ended.told + ended.said
    assert (tmp_path / "runs/mine/adapter/adapter_model.safetensors").is_file()
    # The next one of that name gets a folder of its own.
    assert "run      runs/mine-2\n" in elsa(*words[:-1], "run.name=mine").told


def test_folder_in_use_is_refused(elsa: Elsa, make: Any, finished: Any, tmp_path: Path) -> None:
    config, out = tmp_path / "mine.toml", tmp_path / "out"
    config.write_text(dump_toml(make()), encoding="utf-8")
    out.mkdir()
    (out / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert "is not empty" in one_error(elsa("run", config, "--out", out), "RunError")
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    said = one_error(elsa("run", config, "--out", finished.directory), "RunError")
    assert f"elsa resume {finished.directory}" in said


def test_export_writes_the_adapter_of_the_last_checkpoint(
    elsa: Elsa, finished: Any, tmp_path: Path
) -> None:
    out = tmp_path / "exported"
    ended = elsa("export", finished.directory, "--out", out)
    assert (ended.status, ended.told, ended.said) == (0, f"{out}\n", "")
    expected = {path.name: path.read_bytes() for path in (finished.directory / "adapter").iterdir()}
    assert {path.name: path.read_bytes() for path in out.iterdir()} == expected


def test_merged_export_is_a_model_with_the_adapter_in_its_weights(
    elsa: Elsa, finished: Any, bert: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    ended = elsa("export", finished.directory, "--out", out, "--merge")
    assert (ended.status, ended.told) == (0, f"{out}\n")
    assert "\r" not in ended.said
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "labels.json"} <= names
    merged, base = (load_file(folder / "model.safetensors") for folder in (out, bert))
    query = "encoder.layer.2.attention.self.query.weight"
    assert not merged[f"bert.{query}"].equal(base[query])
    assert merged["bert.embeddings.word_embeddings.weight"].equal(
        base["embeddings.word_embeddings.weight"]
    )


def test_export_spares_what_lies_in_its_way(elsa: Elsa, finished: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    said = one_error(elsa("export", finished.directory, "--out", tmp_path), "RunError")
    assert "is not empty" in said
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    one_error(elsa("export", finished.directory, "--out", tmp_path / "thesis.txt"), "RunError")


def test_export_without_out_goes_into_the_run_and_may_be_repeated(elsa: Elsa, command: Any) -> None:
    for _ in range(2):
        ended = elsa("export", command.directory)
        assert (ended.status, ended.told) == (0, f"{command.directory / 'export'}\n")


def test_resumed_run_prints_its_summary(elsa: Elsa, command: Any) -> None:
    ended = elsa("resume", command.directory, "--json")
    assert ended.status == 0
    assert json.loads(ended.told)["samples"] == json.loads(command.told)["samples"]


def test_run_and_resume_leave_a_page_of_the_run(elsa: Elsa, command: Any) -> None:
    page = command.directory / "report.html"
    text = page.read_text("utf-8")
    assert "Test accuracy" in text
    assert "has not ended" not in text
    page.unlink()
    told = elsa("resume", command.directory).told
    assert f"report   {page}\n" in told
    assert page.is_file()


def test_run_reckons_what_its_devices_hold(command: Any) -> None:
    rows = json.loads((command.directory / "plan.json").read_text("utf-8"))["devices"]
    assert [(row["device"], row["split"]) for row in rows] == [
        (f"device-{number}", [1, 2, 1]) for number in range(3)
    ]
    for row in rows:
        assert 0 < sum(row["memory"].values()) < sum(row["whole_memory"].values())
        assert 0 < row["flops"] < row["whole_flops"]


def test_report_of_runs_is_written_where_it_is_wanted(
    elsa: Elsa, finished: Any, command: Any, tmp_path: Path
) -> None:
    page = tmp_path / "both.html"
    ended = elsa("report", finished.directory, command.directory, "--out", page)
    assert (ended.status, ended.told) == (0, f"{page}\n")
    assert page.read_text("utf-8").count("Legend") == 1


def test_a_run_stays_finished_where_no_page_can_be_written(elsa: Elsa, command: Any) -> None:
    page = command.directory / "report.html"
    page.unlink()
    page.mkdir()  # nothing can take its place
    try:
        ended = elsa("resume", command.directory)
    finally:
        page.rmdir()
    assert ended.status == 0
    assert ended.said.splitlines()[-1].startswith("no report: ")


def test_interrupt_has_its_status_and_message(elsa: Elsa, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted("Go on with: elsa resume there")

    monkeypatch.setattr(engine, "run", interrupted)
    ended = elsa("run")
    assert (ended.status, ended.told) == (130, "")
    assert ended.said == "Go on with: elsa resume there\n"


def test_second_interrupt_ends_without_a_traceback(
    elsa: Elsa, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "run", interrupted)
    ended = elsa("run")
    assert (ended.status, ended.told) == (130, "")
    assert "Traceback" not in ended.said


def test_json_stays_json_when_training_diverged(
    elsa: Elsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "summary.json").write_text('{"loss": null}\n', encoding="utf-8")
    result = engine.Result(tmp_path, {"loss": float("nan")})
    monkeypatch.setattr(engine, "run", lambda *_, **__: result)
    assert json.loads(elsa("run", "--json").told) == {"loss": None}

"""A run that was stopped or killed, and resumed, ends as if nothing had happened."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elsa.config.printing import dump_toml
from elsa.engine.run import resume, run
from elsa.errors import Interrupted, RunError
from elsa.record.directory import read_summary
from elsa.record.events import Event
from elsa.record.log import read_events

Traces = Callable[[Path], dict[str, Any]]

MODES = {
    "kept": (),
    "frozen-trunk": ("split.freeze=trunk", "wire.h1=temporal:0.1:16", "wire.h2=fill:0.2"),
    "shared": ("federation.trunk=shared",),
    "reset-few": ("train.optimizer_state=reset", "federation.participation=0.67"),
    "fedadam-prox": ("aggregate.server=adam", "aggregate.mu=0.1"),
    "ranks-product": ("adapter.ranks=[2, 1]", "aggregate.factors=product"),
    "shared-few": (
        "federation.trunk=shared",
        "train.optimizer_state=reset",
        "federation.participation=0.67",
        "federation.rounds=3",
        "evaluate.every=2",
    ),
}
CLUSTERED = (
    "federation.devices=5",
    "partition.min_rows=4",
    "federation.rounds=3",
    "network.latency_spread=1.0",
    "cluster.strategy=behaviour",
    "cluster.trust=true",
    "cluster.every=1",
    "cluster.margin=0.0",
    "cluster.probe_count=16",
    "cluster.dimensions=4",
)
MODES |= {
    "buffered": (
        "federation.devices=5",
        "federation.rounds=3",
        "partition.min_rows=4",
        "aggregate.late=buffer",
        "deploy.device_quorum=0.5",
        "network.slow=0.4",
        "wire.preset=balanced",
    ),
    "two-part-sequential": ("split.layout=two-part", "federation.trunk=sequential"),
    "clustered": (*CLUSTERED, "wire.preset=balanced"),
    "mixed-few": (
        *CLUSTERED,
        "cluster.strategy=mixed",
        "cluster.every=2",
        "federation.participation=0.67",
        "federation.trunk=shared",
    ),
}
ELSA = Path(sys.executable).with_name("elsa")


class Stop:
    """The person's Ctrl-C: so many exchanges after the first event of a kind."""

    def __init__(self, kind: str, exchanges: int) -> None:
        self._kind, self._left = kind, exchanges
        self._heard = False

    def listen(self, event: Event) -> None:
        self._heard |= event.kind == self._kind

    def __call__(self) -> bool:
        self._left -= self._heard
        return self._left <= 0


STOPS = [
    ("run_started", 1),  # the first exchange of all
    ("round_started", 7),
    ("round_finished", 3),  # while evaluating, in the modes that do so after each round
    ("device_finished", 4),
    ("evaluated", 2),
    ("round_finished", 12),
]
"""Each is of a process that goes on where the one before it was stopped."""

KILL = """
import os, random, signal, sys, time
from pathlib import Path
from elsa.cli.main import main
from elsa.config.load import load_config
from elsa.engine.run import build_federation, open_sources

config, out, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
settings = load_config(config)
build_federation(settings, open_sources(settings))  # whatever is imported late is now there

def attempt(seconds):
    begun = (out / "manifest.json").exists()
    child = os.fork()
    if not child:
        rest = ["resume", str(out)] if begun else ["run", config, "--out", str(out)]
        sys.argv = ["elsa", *rest]
        main()
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for _ in range(kills):
    attempt(random.uniform(0.1, 0.8))
sys.exit(attempt(None))
"""
"""Runs a config, kills it at random moments, resumes it each time, and at last lets it end."""


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest, make: Any) -> Any:
    return make(*MODES[request.param])


def test_stopped_again_and_again_equals_uninterrupted(
    mode: Any, traces: Traces, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    run(mode, out=whole)
    begun = False
    for kind, exchanges in STOPS:
        stop = Stop(kind, exchanges)
        with pytest.raises(Interrupted, match=f"elsa resume {out}"):
            if begun:
                resume(out, listen=stop.listen, stop=stop)
            else:
                run(mode, out=out, listen=stop.listen, stop=stop)
        begun = True
        assert read_events(out / "events.jsonl")[-1].event.kind == "interrupted"
    resume(out)
    expected = traces(whole)
    for what, found in traces(out).items():
        assert found == expected[what], what


def test_killed_before_the_first_checkpoint_starts_again(
    make: Any, finished: Any, traces: Traces, tmp_path: Path
) -> None:
    stop = Stop("run_started", 1)
    with pytest.raises(Interrupted):
        run(make(), out=tmp_path / "run", listen=stop.listen, stop=stop)
    for checkpoint in (tmp_path / "run" / "checkpoint").iterdir():
        checkpoint.unlink()
    resume(tmp_path / "run")
    assert traces(tmp_path / "run") == traces(finished.directory)


def test_finished_run_resumed_is_the_same_run(
    finished: Any, traces: Traces, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(finished.directory, again)
    result = resume(again)
    assert result.summary["accuracy"] == finished.summary["accuracy"]
    assert traces(again) == traces(finished.directory)


def test_killed_after_the_last_round_still_gets_its_adapter_and_summary(
    finished: Any, traces: Traces, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(finished.directory, again)
    (again / "summary.json").unlink()
    shutil.rmtree(again / "adapter")
    resume(again)
    assert traces(again) == traces(finished.directory)


def test_changed_data_or_model_is_refused_and_put_back_is_taken(
    make: Any, bert: Path, questions: Path, finished: Any, traces: Traces, tmp_path: Path
) -> None:
    model, data, out = tmp_path / "model", tmp_path / "questions.csv", tmp_path / "run"
    shutil.copytree(bert, model)
    shutil.copy(questions, data)
    stop = Stop("round_finished", 1)
    with pytest.raises(Interrupted):
        run(
            make(f"model.path={model}", f"data.path={data}"),
            out=out,
            listen=stop.listen,
            stop=stop,
        )

    def refused(path: Path, old: bytes, new: bytes, message: str) -> None:
        before = path.read_bytes()
        assert old in before
        path.write_bytes(before.replace(old, new, 1))
        with pytest.raises(RunError, match=message):
            resume(out)
        path.write_bytes(before)

    refused(data, b"?", b"!", "data of this run has changed.*data.path")
    weights = model / "model.safetensors"
    last = weights.read_bytes()[-40:]
    refused(weights, last, last[::-1], r"model .* has changed .*model\.safetensors.*model.path")
    refused(model / "tokenizer.json", b"[CLS]", b"[CLX]", r"tokenizer\.json")
    resume(out)
    expected = traces(finished.directory)
    assert traces(out)["checkpoint"] == expected["checkpoint"]
    assert traces(out)["events"] == expected["events"]


def test_killed_at_random_moments_equals_uninterrupted(
    make: Any, traces: Traces, tmp_path: Path
) -> None:
    settings = make("federation.rounds=5")
    whole, out, config = tmp_path / "whole", tmp_path / "killed", tmp_path / "config.toml"
    run(settings, out=whole)
    config.write_text(dump_toml(settings), encoding="utf-8")
    command = (sys.executable, "-c", KILL, config, out, "6")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    expected = traces(whole)
    for what, found in traces(out).items():
        assert found == expected[what], what


def test_interrupt_ends_with_130_and_names_the_command_that_goes_on(
    make: Any, tmp_path: Path
) -> None:
    config, out = tmp_path / "config.toml", tmp_path / "run"
    config.write_text(dump_toml(make("federation.rounds=6")), encoding="utf-8")
    with subprocess.Popen(
        (ELSA, "run", config, "--out", out, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("3 devices, 2 edges, 6 rounds"):
                break
        process.send_signal(signal.SIGINT)
        told, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert told == ""
    assert said.rstrip().endswith(f"elsa resume {out}")
    assert "Traceback" not in said
    assert read_events(out / "events.jsonl")[-1].event.kind == "interrupted"
    assert read_summary(out) is None
    resume(out)
    summary = read_summary(out)
    assert summary is not None
    assert summary["rounds"] == 6

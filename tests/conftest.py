"""What end-to-end tests share: tiny models with a real tokenizer, real questions, short runs."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Protocol

import pytest

ROWS = 300
TIMES = {"time", "wall_seconds", "samples_per_second", "peak_rss_bytes"}
"""What may differ between two runs that are otherwise the same."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[END]")


class Make(Protocol):
    """Makes a config of the tiny federation; each argument is an override, "a.b=c"."""

    def __call__(self, *overrides: str) -> Any: ...


def pytest_configure() -> None:
    """Take interrupts, which a job in a shell's background ignores, and its children with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker have all tests that look at the run in a process of its own."""
    for item in items:
        if "command" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("command"))


@pytest.fixture(scope="session")
def rows() -> list[tuple[str, str]]:
    """Real questions with their class; fetched once if they are not in the cache."""
    from elsa.data.sources import load_table

    table = load_table("trec")
    assert table.label is not None
    labels = [table.label_names[number] for number in table.label[:ROWS]]
    return list(zip(table.text[:ROWS], labels, strict=True))


@pytest.fixture(scope="session")
def questions(rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's CSV file of them, with column names of its own."""
    path = tmp_path_factory.mktemp("data") / "questions.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "kind"])
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def bert(rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random encoder with a tokenizer trained on the questions."""
    from transformers import BertConfig, BertModel

    directory = tmp_path_factory.mktemp("models") / "bert"
    words = _save_tokenizer([text for text, _ in rows], directory)
    config = BertConfig(
        vocab_size=words,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=48,
        initializer_range=0.2,
    )
    _save_model(BertModel, config, directory)
    return directory


@pytest.fixture(scope="session")
def llama(rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random decoder with tied embeddings and a tokenizer trained on the questions."""
    from transformers import LlamaConfig, LlamaForCausalLM

    directory = tmp_path_factory.mktemp("models") / "llama"
    words = _save_tokenizer([text for text, _ in rows], directory)
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        max_position_embeddings=48,
        tie_word_embeddings=True,
        eos_token_id=SPECIAL.index("[END]"),
    )
    _save_model(LlamaForCausalLM, config, directory)
    return directory


@pytest.fixture(scope="session")
def make(bert: Path, questions: Path) -> Make:
    """Config of a federation of 3 devices and 2 edges that trains in a blink."""
    from elsa.config.load import load_config

    base = [
        "run.name=tiny",
        "evaluate.every=1",
        "run.threads=1",
        f"model.path={bert}",
        "model.precision=float32",
        "model.max_tokens=32",
        f"data.path={questions}",
        "data.text=question",
        "data.label=kind",
        "data.limit=90",
        "federation.devices=3",
        "federation.edges=2",
        "federation.rounds=2",
        "federation.local_steps=2",
        "adapter.rank=2",
        "train.batch_size=4",
        "train.learning_rate=1e-2",
        "wire.preset=exact",
    ]
    return lambda *overrides: load_config(None, [*base, *overrides])


@pytest.fixture(scope="session")
def finished(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of the tiny config, to be looked at only; a `Result` of the engine."""
    from elsa.engine.run import run

    return run(make(), out=tmp_path_factory.mktemp("runs") / "finished")


@dataclass(frozen=True)
class Command:
    """A run of the tiny config by the command line, in a process of its own.

    Attributes:
        directory: what it wrote.
        told: its standard output.
        said: its standard error.
    """

    directory: Path
    told: str
    said: str


@pytest.fixture(scope="session")
def command(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """`elsa run --json` of the tiny config, with a seed of its own for hashes of strings."""
    from elsa.config.printing import dump_toml

    folder = tmp_path_factory.mktemp("command")
    (folder / "config.toml").write_text(dump_toml(make()), encoding="utf-8")
    hashes = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    ended = subprocess.run(
        (Path(sys.executable).with_name("elsa"), "run", "config.toml", "--out", "out", "--json"),
        cwd=folder,
        env=os.environ | {"PYTHONHASHSEED": hashes},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return Command(folder / "out", ended.stdout, ended.stderr)


@pytest.fixture(scope="session")
def sources(make: Make) -> Any:
    """Text, model and tokenizer of the tiny config, opened once for all federations of it."""
    from elsa.engine.build import open_sources
    from elsa.engine.machine import prepare

    prepare(1)
    return open_sources(make())


@pytest.fixture
def drive(sources: Any, tmp_path: Path) -> Callable[..., tuple[Any, Path]]:
    """Runs a federation of the tiny config with layers on its links; returns it and the run."""
    from elsa.engine.build import build_federation
    from elsa.engine.provenance import new_manifest
    from elsa.engine.runner import Runner
    from elsa.engine.simulate import Simulation
    from elsa.record.directory import RunDirectory

    def go(config: Any, *layers: Any) -> tuple[Any, Path]:
        federation = build_federation(config, sources, layers)
        out = tmp_path / "run"
        with RunDirectory.create(out, new_manifest(config, {}, {})) as directory:
            play = partial(Simulation, federation)
            runner = Runner(federation, sources, directory, lambda _: None, lambda: False, play)
            runner.run(monotonic())
        return federation, out

    return go


class Relay:
    """Passes bytes between callers and a server, until told otherwise.

    Attributes:
        address: HOST:PORT to call.
        connections: made so far.
    """

    def __init__(self, target: str, cut_after: float = inf, delay: float = 0.0) -> None:
        """Listen; a connection is cut when so many bytes have passed it one way.

        Every piece of data is held back for `delay` seconds.
        """
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections = 0
        self._cut_after = cut_after
        self._delay = delay
        self._open: list[socket.socket] = []
        self._flowing = threading.Event()
        self._flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection there is, as if the network had; new ones are let through."""
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def half_close(self) -> None:
        """End one way of every connection there is; the other way stays open."""
        for each in self._open[::2]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_WR)
        self._open.clear()

    def stall(self) -> None:
        """Let nothing pass, and tell nobody, until `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # else a waiting accept takes one more
        self._listening.close()
        self.flow()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:  # not there yet
                caller.close()
                continue
            self.connections += 1
            self._open += [caller, server]
            for ends in ((caller, server), (server, caller)):
                threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while (data := source.recv(65536)) and passed < self._cut_after:
                self._flowing.wait()
                sleep(self._delay)
                sink.sendall(data)
                passed += len(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture
def relay() -> Iterator[Callable[..., Relay]]:
    """Makes relays to an address; closed after the test."""
    made: list[Relay] = []

    def make(target: str, cut_after: float = inf, delay: float = 0.0) -> Relay:
        made.append(Relay(target, cut_after, delay))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def traces() -> Callable[[Path], dict[str, Any]]:
    """Run directory -> everything in it that two equal runs have in common."""
    from elsa.record.checkpoint import load_checkpoint
    from elsa.record.shelf import Shelf

    def held(run: Path) -> dict[str, Any]:
        checkpoint = load_checkpoint(run)
        tensors = dict(checkpoint.tensors)
        if checkpoint.shelf is not None:
            shelf = Shelf(run)
            checkpoint.fill(shelf)
            tensors |= {f"{owner}/{key}": it for owner in shelf for key, it in shelf[owner].items()}
        return {name: (value.dtype, value.tolist()) for name, value in tensors.items()}

    def read(run: Path) -> dict[str, Any]:
        lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
        with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
            metrics = list(csv.DictReader(file))
        return {
            "events": [_without_times(json.loads(line)) for line in lines],
            "metrics": [_without_times(row) for row in metrics],
            "summary": _without_times(json.loads((run / "summary.json").read_bytes())),
            "adapter": {
                path.relative_to(run / "adapter").as_posix(): path.read_bytes()
                for path in sorted((run / "adapter").rglob("*"))
                if path.is_file()
            },
            "checkpoint": held(run),
        }

    return read


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in TIMES}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _save_tokenizer(texts: list[str], directory: Path) -> int:
    """Write a word tokenizer of these texts; return how many ids it has."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", SPECIAL.index("[CLS]")), ("[SEP]", SPECIAL.index("[SEP]"))],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[END]",
    ).save_pretrained(directory)
    return int(tokenizer.get_vocab_size())


def _save_model(kind: Any, config: Any, directory: Path) -> None:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(1)
        kind(config).save_pretrained(directory)

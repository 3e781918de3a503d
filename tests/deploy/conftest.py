"""A federation on real links: its files, its certificates, and processes of its parties."""

import csv
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
import torch
from parties import CONTEXT, command
from safetensors.torch import load_file

from elsa.config.load import load_config
from elsa.config.printing import dump_toml
from elsa.data.partition import partition
from elsa.data.table import Table
from elsa.engine.build import Sources, build_federation
from elsa.engine.deploy.cloud import run_cloud
from elsa.engine.deploy.device import run_device
from elsa.engine.deploy.edge import run_edge
from elsa.engine.parts import load_model, load_text, model_directory
from elsa.engine.simulate import Simulation
from elsa.engine.tasks import TaskParts
from elsa.model.tokenizer import load_tokenizer
from elsa.wire.rpc.authority import Party, issue, make_authority
from elsa.wire.rpc.security import Tls

COMMON = (
    "run.threads=1",
    "model.precision=float32",
    "wire.preset=exact",
    "data.holdout_fraction=0.2",
    "federation.rounds=2",
    "federation.edge_rounds=2",
    "evaluate.every=2",
    "deploy.answer_seconds=60",
    "deploy.reconnect_seconds=60",
    "deploy.round_seconds=300",
)

PATIENCE = 600.0
"""Seconds until a test gives up on a process; machines under load are slow to start them."""


class Process:
    """A party in a process of its own; what it says goes to a file.

    Attributes:
        name: of the party.
    """

    def __init__(self, name: str, words: Sequence[str], folder: Path) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        # forked from one that has imported everything, which takes seconds
        self._process = CONTEXT.Process(target=command, args=(words, folder, self._log))
        self._process.start()

    @property
    def log(self) -> str:
        if not self._log.exists():
            return ""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str, times: int = 1) -> None:
        """Until its log holds the text so many times."""
        until = monotonic() + PATIENCE
        while self.log.count(text) < times:
            assert monotonic() < until, f"{self.name} never said '{text}':\n{self.log}"
            assert self._process.is_alive(), f"{self.name} ended:\n{self.log}"
            sleep(0.05)

    def end(self) -> int:
        """Its exit status, once it has ended by itself."""
        self._process.join(PATIENCE)
        if self._process.exitcode is None:
            pytest.fail(f"{self.name} did not end:\n{self.log}")
        return self._process.exitcode

    def signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """At once, whatever it is doing."""
        self._process.kill()
        self._process.join()


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts parties in `tmp_path`; they are gone after the test."""
    started: list[Process] = []

    def begin(name: str, *words: str) -> Process:
        started.append(Process(name, words, tmp_path))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


@pytest.fixture
def ports() -> list[int]:
    """Three free ports: of two edges, and of a cloud that edges come to."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        socket.create_server(("127.0.0.1", 0)) as three,
    ):
        return [it.getsockname()[1] for it in (one, two, three)]


class World:
    """A federation of processes and the same one simulated.

    Attributes:
        folder: where its files are: config.toml, certificates in `certs`, DEVICE.csv.
        config: of all parties.
    """

    def __init__(self, config: Any, folder: Path, start: Any, ports: Sequence[int]) -> None:
        self.config, self.folder = config, folder
        self._start, self._ports = start, ports
        text = load_text(config, config.data, lambda _: None)
        (folder / "config.toml").write_text(dump_toml(config), encoding="utf-8")
        self._parts = partition(
            len(text.train),
            "dirichlet",
            config.federation.devices,
            config.run.seed,
            alpha=config.partition.alpha,
            min_rows=config.partition.min_rows,
            labels=text.train.label,
            groups=None,
        )
        for number, rows in enumerate(self._parts):
            _write_rows(folder / f"device-{number}.csv", text.train.take(np.asarray(rows)))
        make_authority(folder / "certs")
        for number in range(config.federation.edges):
            issue(folder / "certs", Party(f"edge-{number}", "edge", ("127.0.0.1",)), 1)
        for number in range(config.federation.devices):
            issue(folder / "certs", Party(f"device-{number}", "device"), 1)
        hosts = ("127.0.0.1",) if config.deploy.link == "flower" else ()
        issue(folder / "certs", Party("cloud", "cloud", hosts), 1)
        self.text = text

    @property
    def addresses(self) -> dict[str, str]:
        """HOST:PORT of each edge."""
        count = self.config.federation.edges
        return {f"edge-{n}": f"127.0.0.1:{self._ports[n]}" for n in range(count)}

    @property
    def meeting(self) -> str:
        """HOST:PORT where edges find the cloud, over Flower."""
        return f"127.0.0.1:{self._ports[2]}"

    def simulated(self) -> dict[str, torch.Tensor]:
        directory = model_directory(self.config.model.path, lambda _: None)
        model = load_model(self.config, len(self.config.data.labels), directory)
        task = TaskParts("", self.text, model)
        sources = Sources((task,), load_tokenizer(directory))
        federation = build_federation(self.config, sources)
        simulation = Simulation(federation)
        for _ in range(self.config.federation.rounds):
            simulation.train_round()
            simulation.evaluate()
        return federation.cloud.adapters

    def edge(self, number: int) -> Any:
        at = f"127.0.0.1:{self._ports[number]}"
        name = f"edge-{number}"
        return self._start(
            name, "edge", "config.toml", "--name", name, "--listen", at, "--certs", "certs"
        )

    def device(self, number: int, *more: str) -> Any:
        name = f"device-{number}"
        at = f"127.0.0.1:{self._ports[number % self.config.federation.edges]}"
        return self._start(
            name,
            "device",
            "config.toml",
            "--name",
            name,
            "--edge",
            at,
            "--data",
            f"{name}.csv",
            "--certs",
            "certs",
            *more,
        )

    def cloud(self) -> Any:
        edges = [
            word
            for number in range(self.config.federation.edges)
            for word in ("--edge", f"edge-{number}=127.0.0.1:{self._ports[number]}")
        ]
        return self._start(
            "cloud", "cloud", "config.toml", *edges, "--certs", "certs", "--out", "run"
        )

    def furthest(self, expected: Mapping[str, torch.Tensor]) -> float:
        """Largest difference of a value of the cloud's adapters from these."""
        found = self.adapters()
        assert found.keys() == expected.keys()
        return max(float((found[key] - expected[key]).abs().max()) for key in found)

    def adapters(self) -> dict[str, torch.Tensor]:
        """What the newest checkpoint of the cloud holds."""
        newest = sorted((self.folder / "run" / "checkpoint").iterdir())[-1]
        return {key.partition("/")[2]: value for key, value in load_file(newest).items()}


def _write_rows(path: Path, table: Table) -> None:
    assert table.label is not None
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "kind"])
        for text, label in zip(table.text, table.label, strict=True):
            writer.writerow([text, table.label_names[label]])


@pytest.fixture
def world(
    questions: Path,
    bert: Path,
    tmp_path: Path,
    start: Any,
    ports: list[int],
    rows: list[tuple[str, str]],
) -> Callable[..., World]:
    """Makes a federation of the tiny model, with overrides."""
    labels = sorted({label for _, label in rows})

    def make(*overrides: str) -> World:
        base = [
            f"model.path={bert}",
            "model.max_tokens=32",
            f"data.path={questions}",
            "data.text=question",
            "data.label=kind",
            f"data.labels={labels}",
            "data.limit=90",
            "partition.min_rows=12",
            "federation.local_steps=3",
            "adapter.rank=2",
            "train.batch_size=4",
            "train.learning_rate=1e-2",
        ]
        config = load_config(None, [*base, *COMMON, *overrides])
        return World(config, tmp_path, start, ports)

    return make


@pytest.fixture
def write_rows() -> Callable[[Path, Table], None]:
    """Writes a device's file."""
    return _write_rows


@pytest.fixture
def play() -> Callable[..., list[str]]:
    """Runs all parties of a world in threads of this process."""
    return _play


def _play(
    there: Any,
    addresses: dict[str, dict[str, str]],
    listen: Callable[[Any], None] = lambda _: None,
    said: list[str] | None = None,
    configs: Mapping[str, Any] | None = None,
) -> list[str]:
    """Run all parties in threads, devices knowing edges at these addresses; what they said.

    A party may have a config of its own.
    """
    said = [] if said is None else said
    failed: list[BaseException] = []
    over = threading.Event()

    def party(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)
            over.set()

    def start(name: str, work: Callable[..., object], *given: Any) -> threading.Thread:
        security = Tls(there.folder / "certs", name)

        def run() -> None:
            config = (configs or {}).get(name, there.config)
            work(config, *given, security, say=said.append, stop=over.is_set)

        thread = threading.Thread(target=party, args=(run,), name=name)
        thread.start()
        return thread

    threads = [start(edge, run_edge, address) for edge, address in there.addresses.items()]
    while not failed and sum("listens at" in line for line in said) < len(threads):
        sleep(0.02)
    for name, edges in addresses.items():
        threads.append(start(name, run_device, edges, there.folder / f"{name}.csv"))
    security = Tls(there.folder / "certs", "cloud")
    party(
        lambda: run_cloud(
            there.config,
            there.addresses,
            security,
            out=there.folder / "run",
            listen=listen,
            stop=over.is_set,
        )
    )
    for thread in threads:
        thread.join(60)
    over.set()
    assert not failed, failed
    assert not any(thread.is_alive() for thread in threads)
    return said

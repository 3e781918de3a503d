"""A federation of processes on this machine that can be struck at a place of a round.

A party is forked from a server that has loaded everything already, so that it starts in a moment;
it runs the engine's own functions under mutual TLS. A strike is a signal to some party at the
moment when a party sees its nth message, or event, of a kind: as if it had been unplugged there.
"""

import csv
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any, Self

from elsa.config.load import load_config
from elsa.config.printing import dump_toml
from elsa.config.schema import Config
from elsa.data.table import Table
from elsa.engine.parts import load_text
from elsa.errors import ElsaError
from elsa.wire.rpc.authority import Party, issue, make_authority
from elsa.wire.rpc.security import Tls
from elsa.wire.transport import Passage

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["elsa.engine.deploy.cloud", "elsa.engine.deploy.device", "elsa.engine.deploy.edge"]
)


@dataclass(frozen=True)
class Strike:
    """A signal at a place of a round.

    Attributes:
        who: party that sees the message or, the cloud only, the event.
        kind: name of the message's class, or kind of the event.
        nth: how many of them it sees before.
        signal: number of the signal.
        victim: party that gets it.
    """

    who: str
    kind: str
    nth: int
    signal: int
    victim: str


class Striker:
    """Sees what passes a party, and strikes when it is its turn; each strike falls once."""

    def __init__(self, name: str, strikes: Sequence[Strike], folder: Path) -> None:
        self._name, self._strikes, self._folder = name, strikes, folder
        self._seen: Counter[int] = Counter()

    def __call__(self, passage: Passage) -> bytes:
        """A layer: the frame passes, if this process is still there."""
        self._see(type(passage.message).__name__)
        return passage.data

    def event(self, event: Any) -> None:
        """Told every event of a run."""
        self._see(event.kind)

    def _see(self, kind: str) -> None:
        turn = len(struck(self._folder))
        if turn == len(self._strikes):
            return
        strike = self._strikes[turn]
        if (strike.who, strike.kind) != (self._name, kind):
            return
        self._seen[turn] += 1
        if self._seen[turn] > strike.nth:
            pid = int((self._folder / f"{strike.victim}.pid").read_text())
            with (self._folder / "struck").open("a") as times:
                times.write(f"{time()}\n")
            os.kill(pid, strike.signal)


def struck(folder: Path) -> list[float]:
    """When each strike fell that has fallen, in seconds since 1970."""
    path = folder / "struck"
    return [float(it) for it in path.read_text().split()] if path.exists() else []


def live(
    role: str, name: str, folder: Path, addresses: Mapping[str, str], strikes: Sequence[Strike]
) -> None:
    """Be a party, in a process of its own; what it says goes to a file."""
    log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(
        level=logging.INFO, format="%(created).3f %(levelname)s %(message)s", stream=sys.stderr
    )
    say = logging.getLogger(name).info
    config, security = load_config(folder / "config.toml"), Tls(folder / "certs", name)
    striker = Striker(name, strikes, folder)
    state = folder / "state"
    edges = {it: at for it, at in addresses.items() if it != "cloud"}
    try:
        match role:
            case "edge":
                from elsa.engine.deploy.edge import run_edge

                meet = addresses["cloud"] if config.deploy.link == "flower" else ""
                run_edge(config, addresses[name], security, cloud=meet, state=state, say=say)
            case "device":
                from elsa.engine.deploy.device import run_device

                rows, seen = folder / f"{name}.csv", (striker,)
                run_device(config, edges, rows, security, state=state, layers=seen, say=say)
            case _:
                from elsa.engine.deploy.cloud import run_cloud

                run_cloud(
                    config,
                    addresses["cloud"] if config.deploy.link == "flower" else edges,
                    security,
                    out=folder / "run",
                    layers=(striker,),
                    listen=striker.event,
                    say=say,
                )
    except ElsaError as error:
        say("%s: %s", type(error).__name__, error)
        sys.exit(1)


def command(words: Sequence[str], folder: Path, log: Path) -> None:
    """Be `elsa` with these words in this folder, in a process of its own."""
    from elsa.cli.main import main

    told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(told, 1)
    os.dup2(told, 2)
    os.chdir(folder)
    sys.argv = ["elsa", *words]
    main()


class Parties:
    """The processes; within a `with`, they are gone after it.

    Attributes:
        folder: of everything they read and write.
        addresses: HOST:PORT of each edge, and of the cloud where it is the one that is called.
    """

    def __init__(self, config: Config, folder: Path, *strikes: Strike) -> None:
        """Write the config, certificates and each device's rows, dealt in turn.

        The strikes fall one after the other.
        """
        self.folder, self._config, self._strikes = folder, config, strikes
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(dump_toml(config), encoding="utf-8")
        count = config.federation
        table = load_text(config, config.data, lambda _: None).train
        for number in range(count.devices):
            part = table.take(list(range(number, len(table), count.devices)))
            write_rows(folder / f"device-{number}.csv", part, config)
        make_authority(folder / "certs")
        parties = [Party("cloud", "cloud", ("127.0.0.1",))]
        parties += [Party(f"edge-{n}", "edge", ("127.0.0.1",)) for n in range(count.edges)]
        parties += [Party(f"device-{n}", "device") for n in range(count.devices)]
        for party in parties:
            issue(folder / "certs", party, 2)
        servers = [*numbered("edge", count.edges), "cloud"]
        self.addresses = dict(zip(servers, free_ports(), strict=False))
        self._processes: dict[str, BaseProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.join()

    def start(self, *names: str) -> None:
        """Start these parties, again or for the first time; all if none are named."""
        count = self._config.federation
        every = [*numbered("edge", count.edges), *numbered("device", count.devices), "cloud"]
        for name in names or every:
            given = (name.split("-")[0], name, self.folder, self.addresses, self._strikes)
            process = CONTEXT.Process(target=live, args=given, name=name)
            process.start()
            self._processes[name] = process
            (self.folder / f"{name}.pid").write_text(str(process.pid))

    def signal(self, name: str, number: int) -> None:
        """Send a party a signal, if it is there."""
        process = self._processes[name]
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, number)

    def ended(self, name: str) -> int | None:
        """A party's exit status; None while it runs."""
        return self._processes[name].exitcode

    def log(self, name: str) -> str:
        """What a party said."""
        path = self.folder / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def when(self, name: str, words: str, after: float = 0.0) -> float | None:
        """When a party said so for the first time after a moment, in seconds since 1970."""
        for line in self.log(name).splitlines():
            stamp = line.partition(" ")[0]
            if words in line and stamp.replace(".", "").isdigit() and float(stamp) >= after:
                return float(stamp)
        return None

    def wait(self, there: Callable[[], Any], seconds: float, what: str) -> None:
        """Until something is there."""
        until = monotonic() + seconds
        while not there():
            if monotonic() > until:
                logs = "\n".join(f"== {it}\n{self.log(it)[-3000:]}" for it in self._processes)
                raise TimeoutError(f"{what} did not happen in {seconds:g} s\n{logs}")
            sleep(0.05)


def numbered(kind: str, count: int) -> list[str]:
    """Names of few parties."""
    return [f"{kind}-{number}" for number in range(count)]


def free_ports(count: int = 8) -> list[str]:
    """Addresses of this machine that nobody listens at."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in held]
    for each in held:
        each.close()
    return addresses


def write_rows(path: Path, table: Table, config: Config) -> None:
    """A device's file."""
    assert table.label is not None
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([config.data.text, config.data.label])
        for text, label in zip(table.text, table.label, strict=True):
            writer.writerow([text, table.label_names[label]])


KILL, STOP, GO_ON = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT

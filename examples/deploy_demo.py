"""A federation of real processes on this machine: one cloud, two edges, six devices, mutual TLS.

Each device gets a file of its own rows, `elsa certs` makes the certificates, and nine processes do
a short quick start. Then the same job is simulated in this process, the adapters of both are
compared, and plain `peft` loads those of the cloud. With one device an edge they must be equal to
the bit; with more, the order of sums at an edge differs, and they may differ by TOLERANCE.

Run: python examples/deploy_demo.py [--out FOLDER] [KEY=VALUE ...], for example
federation.devices=2 for the case that is equal to the bit, deploy.link=flower for Flower and its
node authentication between cloud and edges
"""

import argparse
import csv
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Self

import psutil
from safetensors.torch import load_file

import elsa
from elsa.config.printing import dump_toml
from elsa.config.schema import Config
from elsa.engine.build import assignment_of, device_names, open_sources
from elsa.engine.shares import shares_of

SHORT = [
    "federation.devices=6",
    "federation.edges=2",
    "federation.rounds=2",
    "federation.local_steps=5",
    "evaluate.every=2",
    "model.precision=float32",  # "auto" could choose otherwise in a simulation than on a device
    "run.threads=1",  # nine processes share this machine's cores
    "deploy.round_seconds=600",
]
TOLERANCE = 1e-5
"""Largest difference of a value of the adapters; the values are of the order of 0.05."""
ENDING = 20.0
"""Seconds that a process has to end by itself once it is told to."""
POLL = 0.2


class PartyError(Exception):
    """A process ended when it should not have, or with an error."""


class Parties:
    """The processes of a federation; none outlives the `with`, whatever ends it.

    What a process says goes to NAME.log; lines meant for people are shown as they come.

    Attributes:
        memory: bytes that each process itself held at most, as far as was seen.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.memory: dict[str, int] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._shown: dict[str, int] = {}
        self._files = ExitStack()

    def start(self, name: str, *words: str) -> None:
        """Start a party: `words` are its command, after `elsa`."""
        log = self._files.enter_context((self._folder / f"{name}.log").open("ab"))
        self._running[name] = subprocess.Popen(
            [sys.executable, "-m", "elsa.cli.main", *words],
            cwd=self._folder,
            stdout=log,
            stderr=log,
            process_group=0,  # Ctrl-C comes to this process, which ends the others in order
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def wait(self) -> None:
        """Until all have ended by themselves; once the cloud has, the others soon must.

        Raises:
            PartyError: one ended with an error, or did not end.
        """
        until = float("inf")
        while "running" in (states := {name: self._state(name) for name in self._running}).values():
            self._show()
            self._look()
            failed = {name: state for name, state in states.items() if state not in ("running", 0)}
            if failed or monotonic() > until:
                raise PartyError(f"not ended well: {failed or states}; the logs say more")
            if states["cloud"] == 0:
                until = min(until, monotonic() + ENDING)
            sleep(POLL)
        if any(states.values()):
            raise PartyError(f"not ended well: {states}; the logs say more")

    def _look(self) -> None:
        for name, process in self._running.items():
            try:
                held = psutil.Process(process.pid).memory_info().rss
            except psutil.Error:
                continue  # it has ended
            self.memory[name] = max(held, self.memory.get(name, 0))

    def _state(self, name: str) -> str | int:
        status = self._running[name].poll()
        return "running" if status is None else status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # nothing may stop this half way
        left = [it for it in self._running.values() if it.poll() is None]
        for process in left:
            process.terminate()
        until = monotonic() + ENDING
        while any(it.poll() is None for it in left) and monotonic() < until:
            sleep(POLL)
        for process in left:
            process.kill()
            process.wait()
        self._show()
        self._files.close()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)

    def _show(self) -> None:
        for name in self._running:
            text = (self._folder / f"{name}.log").read_bytes()
            whole = text.rfind(b"\n") + 1
            for line in text[self._shown.get(name, 0) : whole].decode(errors="replace").split("\n"):
                if line and not line[0].isdigit():  # dated lines are for the log
                    print(f"{name:9} | {line}", flush=True)
            self._shown[name] = whole


def prepare(overrides: list[str], folder: Path) -> Config:
    """Write what a person brings to each machine: the config, certificates, a device's rows."""
    config = elsa.load_config(overrides=overrides)
    sources = open_sources(config, print)
    rows = sources.text.train
    labels = list(rows.label_names)
    config = elsa.load_config(overrides=[*overrides, f"data.labels={labels}"])
    (folder / "federation.toml").write_text(dump_toml(config), encoding="utf-8")
    shares = shares_of(config, sources.tasks[0], config.federation.devices)
    for name, share in zip(device_names(config), shares, strict=True):
        own = rows.take(share)
        assert own.label is not None
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([config.data.text, config.data.label])
            for text, label in zip(own.text, own.label, strict=True):
                writer.writerow([text, labels[label]])
    made = [sys.executable, "-m", "elsa.cli.main", "certs", "certs", "federation.toml"]
    subprocess.run(made, cwd=folder, check=True)
    return config


def deploy(config: Config, folder: Path) -> Path:
    """Run the federation as processes; return the cloud's run directory, and say what they held.

    Raises:
        PartyError: one of them failed.
    """
    devices_of = assignment_of(config)
    meeting, *ports = [f"127.0.0.1:{port}" for port in free_ports(1 + len(devices_of))]
    addresses = dict(zip(devices_of, ports, strict=True))
    tls = ["--certs", "certs"]
    calling = ["--cloud", meeting] if config.deploy.link == "flower" else []
    where = [word for it in addresses.items() for word in ("--edge", "=".join(it))]
    meet = ["--listen", meeting] if calling else where
    with Parties(folder) as parties:
        for edge, address in addresses.items():
            parties.start(
                edge, "edge", "federation.toml", "--name", edge, "--listen", address, *tls, *calling
            )
        for edge, devices in devices_of.items():
            for name in devices:
                own = ["--name", name, "--edge", addresses[edge], "--data", f"{name}.csv"]
                parties.start(name, "device", "federation.toml", *own, *tls)
        parties.start("cloud", "cloud", "federation.toml", *meet, *tls, "--out", "deployed")
        parties.wait()
    for kind in ("cloud", "edge", "device"):
        most = max((it for name, it in parties.memory.items() if kind in name), default=0)
        print(f"memory of {kind}, the largest: {most / 1e6:.0f} MB", flush=True)
    return folder / "deployed"


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at just now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [it.getsockname()[1] for it in sockets]


def furthest(one: Path, other: Path) -> float:
    """Largest difference of a value of the adapters of two runs."""
    left, right = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, other))
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def use_in_plain_peft(run: Path) -> str:
    """What the example in the adapter's own README prints, in a process without elsa.

    Raises:
        PartyError: it fails.
    """
    adapter = run / "adapter"
    found = re.search(r"```python\n(.*?)```", (adapter / "README.md").read_text("utf-8"), re.DOTALL)
    assert found
    code = f"import sys; sys.modules['elsa'] = None\n{found[1]}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=adapter, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PartyError(f"plain peft cannot use {adapter}: {done.stderr}")
    return done.stdout.strip()


def main() -> None:
    """Deploy, simulate, compare; status 0 only if the adapters agree and load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/deploy-demo"), help="new folder")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the parties, as Ctrl-C does
    folder = options.out.resolve()
    try:
        folder.mkdir(parents=True)
        config = prepare([*SHORT, *options.settings], folder)
        began = monotonic()
        deployed = deploy(config, folder)
        print(
            f"{len(device_names(config))} devices deployed: {monotonic() - began:.0f} s", flush=True
        )
        simulated = elsa.run(config, out=folder / "simulated").directory
        exact = config.federation.devices == config.federation.edges
        apart, allowed = furthest(deployed, simulated), 0.0 if exact else TOLERANCE
        print(f"deployed and simulated adapters differ by {apart:.1e}; allowed: {allowed:.0e}")
        print(f"plain peft says: {use_in_plain_peft(deployed)}")
    except KeyboardInterrupt:
        raise SystemExit("stopped; no process is left") from None
    except (PartyError, elsa.ElsaError, OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    if apart > allowed:
        raise SystemExit("the adapters are further apart than that")
    print(f"adapter in {deployed / 'adapter'}")


if __name__ == "__main__":
    main()

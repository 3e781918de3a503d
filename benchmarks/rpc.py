"""What does a real network cost? Steps over gRPC with mutual TLS, start-up, many devices.

1. A device's local step with its edge server in a process of its own against the same step with
   everything in one process, in turns; a ratio is taken within each turn. MiniLM, one thread each.
   Seconds on the clock, and seconds of processor time of both ends, which other work on the
   machine does not stretch.
2. A device process: seconds from its start until it is registered, and its memory while idle.
3. One edge with 1, 8 and 32 devices at once, each of which sends hidden states and gradients of
   real size as fast as it is answered: steps a second, and the edge's memory.
4. The same with 1 and 8 devices whose links take DELAY seconds each way: were nothing computed
   while frames are on their way, 8 devices would take 8 times as long as one.
5. A device that trains with 1, 2 and 4 micro-batches in flight, over a link that takes DELAY
   seconds each way, and over one of the quick start's latency and bandwidth: seconds of a step.

Prints tables, writes JSON.

    python benchmarks/rpc.py --out docs/results/rpc.json
"""

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any

import psutil
import torch
from far import FarAway
from measured import machine, print_table, write_json

from elsa.config.load import load_config
from elsa.config.printing import dump_toml
from elsa.config.schema import Config
from elsa.core.codec import Frame, Identity
from elsa.engine.build import build_federation, cloud_of, open_sources
from elsa.engine.conversation import Conversation
from elsa.engine.deploy.rounds import CLOUD
from elsa.engine.deploy.terms import terms_of
from elsa.engine.deploy.tokens import showing
from elsa.engine.machine import prepare
from elsa.engine.parts import load_model, model_directory
from elsa.engine.simulate import Simulation
from elsa.model.segments import initial_adapters
from elsa.roles.exchange import expect
from elsa.wire.messages import (
    Activations,
    EdgeUpdate,
    Gradients,
    LocalPlan,
    Next,
    Ready,
    Register,
    Task,
    Update,
    Welcome,
)
from elsa.wire.rpc.authority import Party, issue, make_authority
from elsa.wire.rpc.client import Rpc
from elsa.wire.rpc.options import Timing
from elsa.wire.rpc.security import Tls
from elsa.wire.transport import Link

STEPS = 10
DELAY = 0.1
BATCH, TOKENS = 16, 12
IN_FLIGHT = (1, 2, 4)
FAR = {"delayed": (DELAY, 1e9, 1e9), "quick start": (0.01, 20e6 / 8, 50e6 / 8)}
"""Links: seconds one way, bytes a second up and down."""
PATIENT = Timing(answer=600, reconnect=120)
LABELS = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]


def settings(devices: int, steps: int) -> Config:
    """Of a federation of one edge and so many devices."""
    return load_config(
        None,
        [
            f"federation.devices={devices}",
            "federation.edges=1",
            "federation.edge_rounds=1",
            f"federation.local_steps={steps}",
            "partition.kind=iid",
            "data.holdout_fraction=0.0",
            f"data.labels={LABELS}",
            f"train.batch_size={BATCH}",
            "run.threads=1",
            "wire.preset=exact",
            "deploy.answer_seconds=600",
            "deploy.reconnect_seconds=120",
        ],
    )


class EdgeProcess:
    """`elsa edge` in a process of its own.

    Attributes:
        folder: its config and certificates.
        address: where it listens.
        process: for memory and processor time.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        (folder / "config.toml").write_text(dump_toml(config), encoding="utf-8")
        make_authority(folder)
        issue(folder, Party("edge-0", "edge", ("127.0.0.1",)), 1)
        issue(folder, Party(CLOUD, "cloud"), 1)
        self._log = (folder / "edge.log").open("wb")
        words = ["edge", "config.toml", "--listen", self.address, "--certs", "."]
        self._popen = start(words, folder, self._log)
        self.process = psutil.Process(self._popen.pid)
        wait_for(folder / "edge.log", "listens at", self._popen)

    def link(self, name: str) -> Rpc:
        """A link of a device or the cloud to it."""
        tier: Any = "edge_cloud" if name == CLOUD else "device_edge"
        if name != CLOUD:
            issue(self.folder, Party(name, "device"), 1)
        link = Link(tier, "edge-0" if name == CLOUD else name, CLOUD if name == CLOUD else "edge-0")
        return Rpc(self.address, link, Tls(self.folder, name), timing=PATIENT)

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        """End it."""
        self._popen.terminate()
        self._popen.wait(300)
        self._log.close()


@contextmanager
def edge_process(config: Config) -> Iterator[EdgeProcess]:
    """An edge in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        edge = EdgeProcess(config, Path(folder))
        try:
            yield edge
        finally:
            edge.close()


def start(words: list[str], folder: Path, log: Any) -> "subprocess.Popen[bytes]":
    """A command of elsa in a process of its own."""
    command = [sys.executable, "-m", "elsa.cli.main", *words]
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def wait_for(log: Path, text: str, process: "subprocess.Popen[bytes]") -> None:
    """Until a process has said so."""
    while text not in log.read_text(encoding="utf-8", errors="replace"):
        if process.poll() is not None:
            raise SystemExit(log.read_text(encoding="utf-8"))
        sleep(0.01)


def order_in(
    edge: EdgeProcess, config: Config, rounds: int, reports: list[Any]
) -> threading.Thread:
    """Have the edge carry out so many rounds, from a thread."""
    directory = model_directory(config.model.path, lambda _: None)
    model = load_model(config, len(LABELS), directory)
    adapters = initial_adapters(model.checkpoint, model.task, model.lora, config.run.seed)
    cloud = cloud_of(config, adapters)
    link = edge.link(CLOUD)

    def drive() -> None:
        for _ in range(rounds):
            (order,) = cloud.orders().values()
            update = expect(EdgeUpdate, link.call(order))
            reports.extend(update.reports)
            cloud.receive("edge-0", update)
            cloud.close_round()
        link.close()

    thread = threading.Thread(target=drive)
    thread.start()
    return thread


def edge_round(edge: EdgeProcess, link: Rpc, device: Any) -> tuple[float, float]:
    """A device's part of an edge round: seconds on the clock, and of processor time of both."""
    task = Task("wait", 0, 0)
    while task.what == "wait":
        task = expect(Task, link.call(Next()))
    began, cpu, there = perf_counter(), process_time(), edge.cpu()
    talk = Conversation(showing(device.train(task.round, task.edge_round)), link)
    while not talk.over:
        talk.advance()
    if talk.error:
        raise talk.error
    return perf_counter() - began, process_time() - cpu + edge.cpu() - there


def step_time(turns: int) -> list[dict[str, Any]]:
    """In process and over gRPC, in turns."""
    config = settings(1, STEPS)
    sources = open_sources(config)
    simulation = Simulation(build_federation(config, sources))
    (device,) = build_federation(config, sources).devices.values()
    rows: dict[str, list[tuple[float, float]]] = {"in process": [], "gRPC, mutual TLS": []}
    with edge_process(config) as edge:
        link = edge.link(device.name)
        link.call(Register(terms_of(config, sources.model, LABELS)))
        reports: list[Any] = []
        cloud = order_in(edge, config, turns + 1, reports)
        for turn in range(turns + 1):
            began, cpu = perf_counter(), process_time()
            simulation.train_round()
            here = (perf_counter() - began, process_time() - cpu)
            far = edge_round(edge, link, device)
            if turn:
                rows["in process"].append(here)
                rows["gRPC, mutual TLS"].append(far)
        cloud.join()
        link.close()
    found = []
    for name, times in rows.items():
        both = list(zip(times, rows["in process"], strict=True))
        found.append(
            {
                "arm": name,
                "wall_ms_a_step": statistics.median(it[0] for it in times) / STEPS * 1e3,
                "cpu_ms_a_step": statistics.median(it[1] for it in times) / STEPS * 1e3,
                "least_wall_ms_a_step": min(it[0] for it in times) / STEPS * 1e3,
                "wall_ratio": statistics.median(it[0] / base[0] for it, base in both),
                "cpu_ratio": statistics.median(it[1] / base[1] for it, base in both),
            }
        )
    return found


def start_up() -> dict[str, Any]:
    """Of a device process."""
    config = settings(1, STEPS)
    with edge_process(config) as edge:
        folder = edge.folder
        issue(folder, Party("device-0", "device"), 1)
        lines = [f"what is question {n} about,{LABELS[n % 6]}" for n in range(100)]
        (folder / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
        words = ["device", "config.toml", "--name", "device-0", "--edge", edge.address]
        with (folder / "device.log").open("wb") as log:
            began = perf_counter()
            device = start([*words, "--data", "rows.csv", "--certs", "."], folder, log)
            wait_for(folder / "device.log", "is at edge-0", device)
            registered = perf_counter() - began
            process = psutil.Process(device.pid)
            spent = process.cpu_times()
            sleep(2)
            memory = process.memory_full_info()
            edge_memory = edge.process.memory_full_info()
            device.terminate()
            device.wait(300)
    return {
        "device_wall_seconds_to_registered": registered,
        "device_cpu_seconds_to_registered": spent.user + spent.system,
        "device_idle_rss_mb": memory.rss / 1e6,
        "device_idle_private_mb": memory.uss / 1e6,
        "edge_idle_rss_mb": edge_memory.rss / 1e6,
    }


def many(devices: int, delay: float = 0.0, steps: int = 4) -> dict[str, Any]:
    """One edge with so many devices at once, their frames so many seconds on the way."""
    config = settings(devices, steps)
    directory = model_directory(config.model.path, lambda _: None)
    model = load_model(config, len(LABELS), directory)
    terms, hidden = terms_of(config, model, LABELS), model.checkpoint.hidden_size
    states = torch.randn(BATCH * TOKENS, hidden).to(model.checkpoint.dtype)
    lengths = (TOKENS,) * BATCH
    packet = Identity().encode(states, Frame(lengths))
    spans: list[tuple[float, float]] = []

    def play(link: Rpc) -> None:
        expect(Welcome, link.call(Register(terms)))
        ready.wait()
        task = Task("wait", 0, 0)
        while task.what == "wait":
            task = expect(Task, link.call(Next()))
        plan = expect(LocalPlan, link.call(Ready(task.round, task.edge_round, 1, 1)))
        began = perf_counter()
        for step in range(plan.local_steps):
            for kind, request in (
                (Activations, Activations(step, True, lengths, packet, token=plan.token)),
                (Gradients, Gradients(step, packet, token=plan.token)),
            ):
                sleep(delay)
                expect(kind, link.call(request))
                sleep(delay)
        spans.append((began, perf_counter()))
        done = Update(task.round, task.edge_round, plan.adapters, 10, 10, 0.5, token=plan.token)
        link.call(done)
        link.close()

    names = [f"device-{n:0{len(str(devices - 1))}d}" for n in range(devices)]
    with edge_process(config) as edge:
        links = [edge.link(name) for name in names]
        ready = threading.Barrier(devices + 1)
        threads = [threading.Thread(target=play, args=(link,)) for link in links]
        for thread in threads:
            thread.start()
        ready.wait()
        idle, cpu = edge.process.memory_info().rss, edge.cpu()
        reports: list[Any] = []
        cloud = order_in(edge, config, 1, reports)
        peak = idle
        while cloud.is_alive():
            peak = max(peak, edge.process.memory_info().rss)
            sleep(0.02)
        spent = edge.cpu() - cpu
        for thread in threads:
            thread.join()
    assert not any(report.lost for report in reports), reports
    seconds = max(end for _, end in spans) - min(began for began, _ in spans)
    return {
        "devices": devices,
        "steps_a_second": devices * steps / seconds,
        "edge_cpu_ms_a_step": spent / (devices * steps) * 1e3,
        "edge_rss_mb": idle / 1e6,
        "edge_peak_rss_mb": peak / 1e6,
    }


def overlap() -> list[dict[str, Any]]:
    """Steps a second of one device and of eight over slow links."""
    rows = [many(devices, DELAY) for devices in (1, 8)]
    alone = rows[0]["steps_a_second"]
    return [
        row | {"seconds_each_way": DELAY, "times_one_device": row["steps_a_second"] / alone}
        for row in rows
    ]


def in_flight(turns: int) -> list[dict[str, Any]]:
    """Micro-batches of a step under way at once, over slow links."""
    rows: list[dict[str, Any]] = []
    for count in IN_FLIGHT:
        config = settings(1, STEPS)
        config = config.model_copy(
            update={"train": config.train.model_copy(update={"in_flight": count})}
        )
        sources = open_sources(config)
        (device,) = build_federation(config, sources).devices.values()
        with edge_process(config) as edge:
            issue(edge.folder, Party(device.name, "device"), 1)
            cloud = order_in(edge, config, len(FAR) * (turns + 1), [])
            for name, how in FAR.items():
                far = FarAway(edge.address, *how)
                hop, me = Link("device_edge", device.name, "edge-0"), Tls(edge.folder, device.name)
                link = Rpc(far.address, hop, me, timing=PATIENT)
                link.call(Register(terms_of(config, sources.model, LABELS)))
                times = [edge_round(edge, link, device) for _ in range(turns + 1)][1:]
                link.close()
                far.close()
                rows.append(
                    {
                        "link": name,
                        "in flight": count,
                        "wall_ms_a_step": statistics.median(it[0] for it in times) / STEPS * 1e3,
                        "cpu_ms_a_step": statistics.median(it[1] for it in times) / STEPS * 1e3,
                    }
                )
            cloud.join()
    alone = {row["link"]: row["wall_ms_a_step"] for row in rows if row["in flight"] == 1}
    return [row | {"gain": alone[row["link"]] / row["wall_ms_a_step"]} for row in rows]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--parts", nargs="*", default=None, help="of those below; all if left out")
    options = parser.parse_args()
    prepare(1)
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "step": lambda: step_time(options.turns),
        "start": lambda: [start_up()],
        "devices": lambda: [many(devices) for devices in (1, 8, 32)],
        "overlap": overlap,
        "in flight": lambda: in_flight(options.turns),
    }
    results: dict[str, Any] = {"machine": machine(), "load_average": []}
    for name, measure in parts.items():
        if options.parts and name not in options.parts:
            continue
        results[name] = measure()
        results["load_average"].append(psutil.getloadavg()[0])
        print_table(results[name])
        if options.out:  # as far as it is
            write_json(options.out, results)


if __name__ == "__main__":
    main()

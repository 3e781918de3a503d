"""What does Flower between cloud and edges cost, and what is lost when its parts are killed?

One edge whose orders compute nothing (or wait, where something is killed meanwhile), real
processes of Flower, TLS and node authentication.

1. Orders over Flower and over gRPC: seconds each, bytes on the network (bodies of requests and
   answers; over gRPC the frames), processor seconds of Flower's processes, their memory (each its
   share, PSS), and bytes while nothing is asked.
2. Each part is killed with signal 9, and the two servers frozen, three seconds after an order of
   15 s began: how long after that the answer is there, and how often the order was computed.

Prints tables, writes JSON. What is there already is not measured again, so it may be stopped and
gone on with.

    python benchmarks/flower.py --out docs/results/flower.json
"""

import argparse
import json
import signal
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any
from unittest.mock import patch

import psutil
import torch
from measured import machine, print_table, write_json
from starlette.requests import Request
from starlette.responses import Response

from elsa.engine.flower import front
from elsa.engine.flower.children import free_port
from elsa.engine.flower.cloud import flower_links
from elsa.engine.flower.edge import flower_caller
from elsa.wire.messages import EdgeUpdate, Message, RoundOrder
from elsa.wire.rpc.authority import Party, issue, make_authority
from elsa.wire.rpc.client import Rpc
from elsa.wire.rpc.options import Timing
from elsa.wire.rpc.security import Tls
from elsa.wire.rpc.server import RpcServer
from elsa.wire.serde import encode
from elsa.wire.transport import Link, Transport

VICTIMS = (
    "flower-superlink",
    "flower-superexec of the cloud",
    "flwr-serverapp",
    "flower-supernode",
    "flower-superexec of the edge",
    "flwr-clientapp",
)
SERVERS = ("flower-superlink", "flower-supernode")
"""What is also frozen."""
LINK = Link("edge_cloud", "edge-0", "cloud")
LIMIT = 2**27
PATIENT = Timing(answer=1800, reconnect=600)
WORK, BEFORE = 15.0, 3.0


class Edge:
    """Answers orders with what they brought.

    Attributes:
        work: seconds that an order takes.
        began: set when one begins.
        computed: rounds, as often as each was computed.
    """

    def __init__(self) -> None:
        self.work = 0.0
        self.began = threading.Event()
        self.computed: list[int] = []

    def handle(self, peer: str, request: Message) -> Message:
        """What an edge would answer."""
        assert isinstance(request, RoundOrder) and peer == "cloud"
        self.computed.append(request.round)
        self.began.set()
        sleep(self.work)
        return EdgeUpdate(request.round, request.adapters, 1.0, ())


def order(round_: int, size: int) -> RoundOrder:
    """An order with adapters of so many bytes."""
    return RoundOrder(round_, 1, 1, ("device-0",), {"adapter": torch.zeros(size // 4)})


@contextmanager
def over_flower(folder: Path, edge: Edge, passed: list[int]) -> Iterator[Transport]:
    """A link to the edge over Flower; bytes through the front are noted in `passed`."""

    pass_on = front.Front._pass_on

    async def counting(there: front.Front, request: Request) -> Response:
        answer = await pass_on(there, request)
        passed.append(int(request.headers.get("content-length", 0)) + len(answer.body))
        return answer

    at = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        stack.enter_context(patch.object(front.Front, "_pass_on", counting))
        stack.enter_context(
            flower_caller(at, Tls(folder, "edge-0"), "cloud", edge.handle, limit=LIMIT)
        )
        links = stack.enter_context(
            flower_links(at, Tls(folder, "cloud"), [LINK], timing=PATIENT, limit=LIMIT)
        )
        yield links["edge-0"]


@contextmanager
def over_grpc(folder: Path, edge: Edge) -> Iterator[Transport]:
    """A direct link to the edge."""
    with RpcServer(edge.handle, "127.0.0.1:0", Tls(folder, "edge-0"), limit=LIMIT) as server:
        link = Rpc(server.address, LINK, Tls(folder, "cloud"), timing=PATIENT, limit=LIMIT)
        yield link
        link.close()


def processes() -> dict[str, psutil.Process]:
    """Flower's processes by name; those that end meanwhile are left out."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        names = (Path(word).name for word in words)
        name = next((it for it in names if it.startswith(("flower-", "flwr-"))), "keeper")
        if name == "flower-superexec":
            name += " of the edge" if "--insecure" in words else " of the cloud"
        found[name] = process
    return found


def cpu() -> float:
    """Processor seconds of Flower's processes, those that ended included."""
    total = 0.0
    for process in processes().values():
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def pace(link: Transport, size: int, orders: int) -> list[float]:
    """Seconds that each order takes; the first, that starts things, is not counted."""
    took = []
    for number in range(orders + 1):
        start = perf_counter()
        link.call(order(number, size))
        took.append(perf_counter() - start)
    return took[1:]


def strike(link: Transport, edge: Edge, victim: str, number: int, how: str) -> dict[str, Any]:
    """Kill or freeze a part in the middle of an order, and see what becomes of it."""
    edge.work = WORK
    edge.began.clear()
    coming: list[Message] = []
    asking = threading.Thread(target=lambda: coming.append(link.call(order(number, 1000))))
    asking.start()
    edge.began.wait()
    sleep(BEFORE)
    start = perf_counter()
    processes()[victim].send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    asking.join()
    return {
        how: victim,
        "answered": bool(coming),
        "seconds_after": perf_counter() - start,
        "computed": edge.computed.count(number),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--bytes", type=int, default=600_000, help="Of the adapters of an order.")
    parser.add_argument("--idle", type=float, default=60.0, help="Seconds of asking nothing.")
    parser.add_argument("--kill", nargs="*", default=list(VICTIMS), choices=VICTIMS)
    parser.add_argument("--freeze", nargs="*", default=list(SERVERS), choices=SERVERS)
    words = parser.parse_args()
    measured: dict[str, Any] = {"machine": machine(), "frame": len(encode(order(0, words.bytes)))}
    if words.out and words.out.exists():
        measured |= json.loads(words.out.read_text(encoding="utf-8"))
        del measured["command"]

    def save() -> None:
        if words.out:
            write_json(words.out, measured)

    with tempfile.TemporaryDirectory() as name:
        folder, edge, passed = Path(name), Edge(), list[int]()
        make_authority(folder)
        for party in (
            Party("edge-0", "edge", ("127.0.0.1",)),
            Party("cloud", "cloud", ("127.0.0.1",)),
        ):
            issue(folder, party, 1)
        if "grpc" not in measured:
            with over_grpc(folder, edge) as link:
                measured["grpc"] = {"seconds": pace(link, words.bytes, words.orders)}
        with over_flower(folder, edge, passed) as link:
            if "flower" in measured:
                link.call(order(0, words.bytes))
            else:
                measured["flower"] = flower(link, edge, passed, words)
                save()
            for how, victims in (("killed", words.kill), ("frozen", words.freeze)):
                found = measured.setdefault(how, [])
                for victim in [it for it in victims if all(one[how] != it for one in found)]:
                    number = 1000 + edge.computed[-1]
                    found.append(strike(link, edge, victim, number, how))
                    print(found[-1], flush=True)
                    save()
    show(measured)


def flower(link: Transport, edge: Edge, passed: list[int], words: Any) -> dict[str, Any]:
    """Orders over Flower, memory of its processes in the middle of one, and idle bytes."""
    link.call(order(0, words.bytes))
    used, before = cpu(), len(passed)
    seconds = pace(link, words.bytes, words.orders)
    share = words.orders + 1
    found = {
        "seconds": seconds,
        "bytes_an_order": sum(passed[before:]) / share,
        "cpu_seconds_an_order": (cpu() - used) / share,
    }
    before = len(passed)
    sleep(words.idle)
    found["idle_bytes_a_minute"] = sum(passed[before:]) * 60 / max(words.idle, 1)
    edge.work = WORK
    edge.began.clear()
    asking = threading.Thread(target=link.call, args=(order(999, 1000),))
    asking.start()
    edge.began.wait()
    found["megabytes"] = {
        name: process.memory_full_info().pss / 1e6 for name, process in processes().items()
    }
    asking.join()
    edge.work = 0.0
    return found


def show(measured: dict[str, Any]) -> None:
    """Tables of what was measured."""
    rows = []
    for link in ("grpc", "flower"):
        took = measured[link]["seconds"]
        row = {"link": link, "seconds an order": statistics.median(took)}
        rows.append(row | {"least": min(took), "most": max(took)})
    print_table(rows)
    print({key: value for key, value in measured["flower"].items() if key != "seconds"})
    for how in ("killed", "frozen"):
        if measured[how]:
            print_table(measured[how])


if __name__ == "__main__":
    main()

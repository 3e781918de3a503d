"""What a cloud and an edge server count, for Prometheus to scrape; imported where asked for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from elsa.engine.deploy.rounds import CLOUD, EdgeRounds
from elsa.errors import ConfigError
from elsa.record import events
from elsa.record.events import Event
from elsa.wire.messages import Activations, EdgeUpdate, Gradients, Message
from elsa.wire.meter import Meter
from elsa.wire.rpc.options import local_address
from elsa.wire.rpc.server import Watch
from elsa.wire.transport import Handler

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BYTES = "elsa_bytes", "Bytes of frames, by hop and direction."


@contextmanager
def scraped(registry: CollectorRegistry, address: str) -> Iterator[str]:
    """Serve a registry over HTTP; gives the HOST:PORT where.

    Args:
        registry: what to serve.
        address: PORT for 127.0.0.1, or HOST:PORT; port 0 takes a free one.

    Raises:
        ConfigError: the address is none, or cannot be had.
    """
    host, port = local_address(address)
    try:
        server, thread = start_http_server(port, host.strip("[]"), registry)
    except OSError as error:
        raise ConfigError(f"cannot listen at {address}: {error.strerror}") from error
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class EdgeMetrics:
    """Of an edge server; `observe` hangs it in.

    Attributes:
        registry: to be scraped.
    """

    def __init__(self, rounds: EdgeRounds) -> None:
        self.registry = registry = _registry()
        for name, what, read in (
            ("connected_devices", "Devices with an open stream.", lambda: rounds.connected),
            ("queue_depth", "Requests on or before the compute lane.", lambda: rounds.queued),
            ("pending_forwards", "Forward passes without backward.", lambda: rounds.pending),
        ):
            Gauge(f"elsa_{name}", what, registry=registry).set_function(read)
        self._rounds = Counter("elsa_rounds", "Global rounds carried out.", registry=registry)
        self._steps = Counter("elsa_steps", "Local steps begun.", registry=registry)
        self._bytes = Counter(*_BYTES, ["hop"], registry=registry)
        self._refused = Counter(
            "elsa_refused", "Requests and callers refused.", ["reason"], registry=registry
        )
        self._seconds = Histogram(
            "elsa_step_seconds",
            "From the hidden states of a step coming to its gradients going.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._lock = threading.Lock()
        self._began: dict[str, float] = {}

    def observe(self, handle: Handler, watch: Watch) -> tuple[Handler, Watch]:
        """The same handler and watch, and counted what passes."""

        def counted(peer: str, request: Message) -> Message:
            now = monotonic()
            answer = handle(peer, request)
            self._count(peer, request, answer, now)
            return answer

        def refused(peer: str, reason: str) -> None:
            self._refused.labels(reason.partition(":")[0]).inc()
            watch.refused(peer, reason)

        turned_away = self._refused.labels
        seen = replace(
            watch,
            refused=refused,
            passed=self._passed,
            turned_away=lambda reason: turned_away(reason).inc(),
        )
        return counted, seen

    def _count(self, peer: str, request: Message, answer: Message, now: float) -> None:
        match request, answer:
            case Activations(training=True), Activations():
                self._steps.inc()
                with self._lock:
                    self._began[peer] = now
            case Gradients(), _:
                with self._lock:
                    began = self._began.pop(peer, now)
                self._seconds.observe(monotonic() - began)
            case _, EdgeUpdate():
                self._rounds.inc()
            case _:
                pass

    def _passed(self, peer: str, received: int, sent: int) -> None:
        below, above = (
            ("cloud_to_edge", "edge_to_cloud")
            if peer == CLOUD
            else ("device_to_edge", "edge_to_device")
        )
        self._bytes.labels(below).inc(received)
        self._bytes.labels(above).inc(sent)


class CloudMetrics:
    """Of the cloud; to be told every event.

    Attributes:
        registry: to be scraped.
    """

    def __init__(self, meter: Meter) -> None:
        self.registry = registry = _registry()
        registry.register(_Bytes(meter))
        self._rounds = Counter("elsa_rounds", "Rounds finished here.", registry=registry)
        self._lost = Counter("elsa_devices_lost", "Left out of a round.", registry=registry)
        self._samples = Counter("elsa_samples", "Rows trained on.", registry=registry)
        self._loss = Gauge("elsa_training_loss", "Of the last round.", registry=registry)
        self._scores = Gauge(
            "elsa_score", "Of the last evaluation, by name.", ["score"], registry=registry
        )
        self._seconds = Histogram(
            "elsa_round_seconds",
            "Of a global round, without evaluation.",
            buckets=(1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600),
            registry=registry,
        )

    def event(self, event: Event) -> None:
        """Count it."""
        match event:
            case events.RoundFinished():
                self._rounds.inc()
                self._samples.inc(event.samples)
                self._loss.set(event.loss)
                self._seconds.observe(event.wall_seconds)
            case events.DeviceLost():
                self._lost.inc()
            case events.Evaluated():
                for name in ("loss", "accuracy", "accuracy_mean_device", "perplexity"):
                    value = getattr(event, name)
                    if value is not None:
                        self._scores.labels(name).set(value)
            case _:
                pass


class _Bytes(Collector):
    """What the cloud's meter has counted, at the moment of asking."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The bytes of both directions."""
        family = CounterMetricFamily(*_BYTES, labels=["hop"])
        for (direction,), traffic in self._meter.totals("direction").items():
            hop = "edge_to_cloud" if direction == "up" else "cloud_to_edge"
            family.add_metric([hop], traffic.bytes)
        yield family


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry

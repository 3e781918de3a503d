"""Ray itself: a cluster that is joined or started, and the processes of edges in it."""

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from elsa.engine.clock import Speed
from elsa.engine.machine import cores
from elsa.engine.ray.luggage import Said
from elsa.engine.ray.process import Process
from elsa.engine.ray.remote import Tell
from elsa.errors import ConfigError, ElsaError, Interrupted, SessionError
from elsa.wire.meter import Phase

STORE = 128 * 2**20
"""Bytes of memory that a cluster started here takes for what crosses; more goes to its folder."""
_LOOK = 0.2
"""Seconds between looks at what an edge has to tell."""
_NEWS = "news"
Say = Callable[[str], None]


class Cluster:
    """A cluster that this process is part of."""

    def __init__(self, ray: Any, threads: int, share: int) -> None:
        """Set up; an edge computes with so many threads, and asks for so many of its CPUs."""
        self._ray = ray
        self._threads = threads
        self._kind = ray.remote(
            num_cpus=share,
            max_restarts=0,  # the driver brings a new one to where the old one was
            concurrency_groups={_NEWS: 1},
            scheduling_strategy="SPREAD",
        )(Process)
        self._actors: list[Any] = []

    def start(self, settings: str, edge: str, folder: str) -> "RayWorker":
        """Start a process that builds an edge's side; see `Host.build`."""
        actor = self._kind.remote()
        self._actors.append(actor)
        building = actor.do.remote("build", settings, edge, self._threads, folder)
        return RayWorker(self._ray, actor, building)

    def end(self) -> None:
        """Kill all of them."""
        for actor in self._actors:
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)


class RayWorker:
    """A process of Ray with a host in it; see `remote.Worker`."""

    def __init__(self, ray: Any, actor: Any, building: Any) -> None:
        self._ray = ray
        self._actor = actor
        self._building = building

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the host."""
        self._built()
        return self._got(self._actor.do.remote(method, *args))

    def ask(
        self, frame: bytes, at: float, speeds: Mapping[str, Speed], phase: Phase, tell: Tell
    ) -> Said:
        """See `Host.ask`."""
        self._built()
        coming = self._actor.do.remote("ask", frame, at, speeds, phase)
        news = self._actor.news.options(concurrency_group=_NEWS)
        while not self._ray.wait([coming], timeout=_LOOK)[0]:
            for each in self._got(news.remote()):
                tell(each)
        said: Said = self._got(coming)
        return said

    def _built(self) -> None:
        if self._building is not None:
            self._got(self._building)
            self._building = None

    def _got(self, coming: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(coming)
        except errors.RayTaskError as error:
            if isinstance(error.cause, ElsaError):
                raise error.cause from None
            raise
        except errors.RayError as error:
            with suppress(errors.RayError):
                self._ray.kill(self._actor)  # one that is only out of reach must not come back
            raise SessionError(_shortly(error)) from error


@contextmanager
def joined(address: str, edges: int, threads: int, say: Say) -> Iterator[Cluster]:
    """A cluster with room for the processes of so many edges.

    Args:
        address: HOST:PORT of one that runs; empty starts one on this machine, that ends with this.
        edges: how many.
        threads: of each; 0 takes as many as there are cores for.
        say: told what takes time.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster, or too small a one.
    """
    ray = _imported()
    with ExitStack() as running:
        if address:
            _join(ray, address)
            running.callback(ray.shutdown)
            sizes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
            threads = threads or most_threads(sizes, edges)
            if not threads or not fits(sizes, edges, threads):
                raise ConfigError(
                    f"--ray-address {address}: its machines have {sizes} CPUs, too few for "
                    f"federation.edges = {edges} with {threads or 1} threads each: have fewer of "
                    "them, or set run.threads"
                )
            share = threads
        else:
            say("starting Ray on this machine")
            running.enter_context(_local(ray, edges, say))
            threads, share = threads or most_threads([max(cores(), edges)], edges), 1
        yield Cluster(ray, threads, share)


def fits(sizes: Sequence[int], edges: int, threads: int) -> bool:
    """Whether machines of so many CPUs have room for so many edges of so many threads."""
    return sum(size // threads for size in sizes) >= edges


def most_threads(sizes: Sequence[int], edges: int) -> int:
    """Most threads that each edge can have on machines of so many CPUs; 0 where not even one."""
    return max(
        (it for it in range(1, max(sizes, default=0) + 1) if fits(sizes, edges, it)), default=0
    )


def _imported() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray then leaves alone which GPUs a process sees, as it will do by itself one day.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    before = signal.getsignal(signal.SIGTERM)
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"--engine ray: Ray is not installed ({error}); pip install 'elsa[ray]', or: make ray"
        ) from error
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray takes it when it is imported
    return ray


def _join(ray: Any, address: str) -> None:
    if address.startswith("ray://"):
        raise ConfigError(
            f"--ray-address {address}: elsa must run on a machine of the cluster; allowed: "
            "HOST:PORT of its head, or auto"
        )
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"--ray-address {address}: {_shortly(error)}") from error


@contextmanager
def _local(ray: Any, edges: int, say: Say) -> Iterator[None]:
    folder, kept = tempfile.mkdtemp(prefix="elsa-ray-"), False
    try:
        try:
            ray.init(
                address="local",  # never one that happens to run here
                num_cpus=edges,
                include_dashboard=False,
                object_store_memory=STORE,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"--engine ray: Ray does not start: {_shortly(error)}") from error
        yield
    except (ConfigError, Interrupted):
        raise
    except Exception:
        kept = True
        say(f"Ray's logs are kept in {folder}")
        raise
    finally:
        ray.shutdown()
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _shortly(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

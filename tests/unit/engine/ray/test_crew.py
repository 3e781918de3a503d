"""Edges that are elsewhere, and die: the run is that of one process.

The processes are objects here, with copies of all that crosses; `tests/deploy/test_ray.py` has
Ray's own.
"""

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from elsa.engine.playing import EMBEDDED, Playing
from elsa.engine.ray.crew import Crew
from elsa.engine.ray.host import Host
from elsa.engine.ray.remote import TRIES
from elsa.engine.ray.spread import Spread
from elsa.engine.run import resume, run
from elsa.errors import ConfigError, Interrupted, LinkError, SessionError
from elsa.record.events import Event
from elsa.record.log import read_events
from elsa.wire.serde import decode

Death = tuple[str, str, int]
"""An edge, what it dies of, and when: a message of a global round, or the n-th call of a method."""

MODES: dict[str, tuple[tuple[str, ...], list[Death]]] = {
    "moving": (
        (
            "federation.devices=4",
            "federation.rounds=3",
            "federation.local_steps=1",
            "partition.min_rows=4",
            "network.latency_spread=1.0",
            "network.drift=1.0",
            "cluster.strategy=behaviour",
            "cluster.trust=true",
            "cluster.every=1",
            "cluster.margin=0.0",
            "cluster.probe_count=16",
            "evaluate.every=2",  # else all who move would be asked at once, before a checkpoint
            "attack.kind=sign-flip",
            "attack.devices=[1]",
            "split.mode=fitted",
            "split.every=1",
            "split.margin=0.0",
            "network.device_gflops=0.01",
            "wire.h1=temporal:0.15:16",
            "wire.h2=temporal:0.15:16",
        ),
        [
            ("edge-1", "RoundOrder", 1),
            ("edge-0", "Verdicts", 1),
            ("edge-1", "EvaluationOrder", 2),
            ("edge-1", "lift", 2),
            ("edge-0", "refit", 1),
        ],
    ),
    "late": (
        (
            "federation.devices=5",
            "federation.rounds=3",
            "partition.min_rows=4",
            "aggregate.late=buffer",
            "deploy.device_quorum=0.5",
            "federation.local_steps=1",
            "network.slow=0.4",
        ),
        [("edge-0", "RoundOrder", 1), ("edge-0", "state", 2), ("edge-1", "held", 2)],
    ),
}


class Near:
    """A worker in this process that dies when it is told to, and answers no more."""

    def __init__(self, edge: str, settings: str, deaths: list[Death], counts: dict[Any, int]):
        self._edge = edge
        self._deaths = deaths
        self._counts = counts
        self._host: Host | None = Host()
        self.call("build", settings, edge, 1, str(Path.cwd()))

    def call(self, method: str, *args: Any) -> Any:
        key = self._edge, method
        self._counts[key] = self._counts.get(key, 0) + 1
        answer = self._do(method, *args)
        self._live(method, self._counts[key])
        return answer

    def ask(self, frame: bytes, *args: Any) -> Any:
        *args, tell = args
        request: Any = decode(frame)
        said = self._do("ask", frame, *args)
        for news in said.news[:1]:
            tell(news)
        self._live(type(request).__name__, request.round)
        return type(said)(said.frame, said.seconds, said.traffic, said.news[1:])

    def _do(self, method: str, *args: Any) -> Any:
        if self._host is None:
            raise SessionError("it was killed before")
        words = pickle.loads(pickle.dumps(args))
        return pickle.loads(pickle.dumps(getattr(self._host, method)(*words)))

    def _live(self, what: str, when: int) -> None:
        if (self._edge, what, when) in self._deaths:
            self._deaths.remove((self._edge, what, when))
            self._host = None
            raise SessionError("killed")


class Elsewhere:
    """An engine with such workers."""

    def __init__(self, deaths: list[Death] | None = None) -> None:
        self.deaths = deaths if deaths is not None else []
        self.said: list[str] = []

    def check(self, config: Any, trace: Any) -> None:
        pass

    @contextmanager
    def open(self, config: Any, trace: Any, say: Any) -> Iterator[Any]:
        counts: dict[Any, int] = {}
        settings = config.model_dump_json()
        made: list[Any] = []

        def start(edge: str) -> Near:
            return Near(edge, settings, self.deaths, counts)

        def ready(federation: Any, directory: Any) -> Playing:
            crew = Crew(federation, directory, start, self.said.append)
            crew.check()

            def rounds(watch: Any) -> Spread:
                made.append(Spread(crew, watch))
                return made[-1]

            return Playing(crew, rounds)

        try:
            yield ready
        finally:
            for each in made:
                each.close()


def stopping(kind: str, count: int) -> dict[str, Callable[..., Any]]:
    """The person's Ctrl-C, at the so many-th event of a kind."""
    heard: list[str] = []

    def listen(event: Event) -> None:
        heard.append(event.kind)

    return {"listen": listen, "stop": lambda: heard.count(kind) >= count}


def compared(of: dict[str, Any]) -> dict[str, Any]:
    """What edges that compute at once leave, whoever of them told first."""
    return of | {"events": sorted(json.dumps(it, sort_keys=True) for it in of["events"])}


@pytest.mark.parametrize("mode", MODES)
def test_elsewhere_killed_stopped_and_gone_on_with_equals_one_process(
    mode: str, make: Any, questions: Path, traces: Any, tmp_path: Path
) -> None:
    overrides, deaths = MODES[mode]
    public = [f"{key}={questions}" for key in ("wire.public", "cluster.probes")]
    columns = [f"{key}=question" for key in ("wire.public_text", "cluster.probes_text")]
    config, planned = make(*overrides, *public, *columns), list(deaths)
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(config, out=whole)
    with pytest.raises(Interrupted):
        run(config, out=out, **stopping("device_finished", 2))
    engine = Elsewhere(planned)
    with pytest.raises(Interrupted):
        resume(out, engine=engine, **stopping("evaluated", 1 if mode == "moving" else 2))
    if mode != "moving":
        resume(out, engine=Elsewhere(planned))
    else:
        resume(out, engine=EMBEDDED)
    assert planned == []
    assert len(engine.said) >= 1
    expected = compared(traces(whole))
    for what, found in compared(traces(out)).items():
        assert found == expected[what], what
    events = [it.event for it in read_events(out / "events.jsonl")]
    kinds = {it.kind for it in events}
    moved = [it for it in events if it.kind == "clustered" and it.moved]
    assert ("splits_chosen" in kinds) == bool(moved) == (mode == "moving")


def test_a_process_that_dies_again_and_again_ends_the_run_which_can_be_gone_on_with(
    make: Any, finished: Any, traces: Any, tmp_path: Path
) -> None:
    engine = Elsewhere([("edge-1", "RoundOrder", 1)] * (TRIES + 1))
    with pytest.raises(LinkError, match="edge-1: its process died 4 times since the last checkp"):
        run(make(), out=tmp_path / "run", engine=engine)
    assert len(engine.said) == TRIES
    resume(tmp_path / "run", engine=Elsewhere())
    found = compared(traces(tmp_path / "run"))
    assert found == compared(traces(finished.directory))


def test_an_edge_that_found_other_rows_is_refused(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def others(self: Host) -> Any:
        model, rows = found(self)
        return model, rows | {"train": "sha256:0"}

    found = Host.digests
    monkeypatch.setattr(Host, "digests", others)
    with pytest.raises(ConfigError, match=r"edge-0 found another data .*\(train\)"):
        run(make(), out=tmp_path / "run", engine=Elsewhere())

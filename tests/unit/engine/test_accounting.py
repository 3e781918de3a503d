"""What a run tells of its noise: as many releases as were made, and what they are worth."""

import json
from pathlib import Path
from typing import Any

import pytest

from elsa.core.noise import epsilon_of
from elsa.engine.accounting import spent
from elsa.engine.run import resume, run
from elsa.errors import Interrupted
from elsa.record import events
from elsa.record.events import Event


def test_only_who_takes_part_pays(make: Any) -> None:
    config = make("noise.update_ratio=3.0", "federation.edge_rounds=2")
    (one,) = spent(config, 4, {"a": 2, "b": 1}, {})
    assert (one.round, one.unit, one.releases) == (4, "device", 4)
    assert one.epsilon == pytest.approx(epsilon_of(3.0, 1e-5, 4))
    assert spent(config, 4, {}, {}) == []
    assert spent(make(), 4, {"a": 2}, {"a": 20}) == []


def test_a_row_counts_once_each_time_that_it_comes_round(make: Any) -> None:
    """2 rounds of 2 edge rounds of 2 steps are 8 batches; 10 rows are 3 batches of up to 4."""
    config = make("noise.gradient_ratio=3.0", "noise.ratio=1.0", "federation.edge_rounds=2")
    accounts = spent(config, 1, {"a": 2, "b": 2}, {"a": 10, "b": 100})
    assert [(it.unit, it.releases) for it in accounts] == [("token", 3), ("label", 3)]


def test_a_run_says_what_its_noise_is_worth_and_goes_on_counting_when_resumed(
    make: Any, tmp_path: Path
) -> None:
    config = make("noise.update_ratio=3.0", "noise.delta=1e-6", "federation.participation=0.67")
    heard: list[Event] = []

    def stopping() -> bool:
        return any(isinstance(it, events.CheckpointSaved) and it.round == 1 for it in heard)

    with pytest.raises(Interrupted):
        run(config, out=tmp_path / "run", listen=heard.append, stop=stopping)
    heard.clear()
    done = resume(tmp_path / "run", listen=heard.append)
    (last,) = [it for it in heard if isinstance(it, events.NoiseSpent)]
    drawn: dict[str, int] = {}
    for line in (tmp_path / "run/events.jsonl").read_text("utf-8").splitlines():
        event = json.loads(line)
        for name in event["devices"] if event["kind"] == "round_started" else ():
            drawn[name] = drawn.get(name, 0) + 1
    assert last.releases == max(drawn.values()) * 2
    assert last.epsilon == epsilon_of(3.0, 1e-6, last.releases)
    assert done.summary["epsilon"] == {"device": last.epsilon}
    assert done.summary["delta"] == 1e-6

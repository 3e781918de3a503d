"""The whole audit of a tiny run: what is decoded is what was sent, and the attacks work on it."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from elsa.audit import labels, linking
from elsa.audit.audit import Settings
from elsa.audit.inverter import Training
from elsa.audit.transcript import Session, Step, read_sessions
from elsa.cli.audit import attack_run, audit, knowledge_of, show
from elsa.config.printing import dump_toml
from elsa.core.codec import EXACT
from elsa.core.noise import Noise
from elsa.core.ragged import flat_index, pack
from elsa.engine.answers import batches_of
from elsa.engine.build import build_federation, open_sources
from elsa.errors import RunError

QUICK = Settings(texts=24, known=4, training=Training(steps=20, batch=16, width=32, rivals=64))


@pytest.fixture(scope="module")
def sessions(recorded: Path) -> list[Session]:
    return read_sessions(recorded / "transcript", lambda: EXACT)


@pytest.fixture(scope="module")
def answer(make: Any, sources: Any) -> Callable[[Session], Any]:
    federation = build_federation(make("partition.kind=iid"), sources)

    def look_up(session: Session) -> Any:
        lengths = [step.lengths for step in session.steps]
        return batches_of(federation, session.device, session.round, session.edge_round, lengths)

    return look_up


def test_every_edge_round_of_every_device_is_there_in_order(sessions: list[Session]) -> None:
    of = {
        (it.edge, it.device, it.round, it.edge_round): [len(it.steps), len(it.update) > 0]
        for it in sessions
    }
    assert len(of) == len(sessions) == 3 * 2 * 2
    assert list(of) == sorted(of)
    assert set(map(tuple, of.values())) == {(2, True)}


def test_decoded_states_are_those_of_the_very_texts_that_the_answers_name(
    sessions: list[Session], answer: Callable[[Session], Any], make: Any, sources: Any
) -> None:
    knowledge, _ = knowledge_of(make(), sources)
    for session in sessions:
        batch = answer(session)[0]  # before the first step the adapters are those the edge sent
        knowledge.bottom.bind(session.adapters)
        with torch.no_grad():
            states = knowledge.bottom(batch.input_ids, batch.mask, batch.token_types)
        expected = pack(states, flat_index(batch.lengths, batch.input_ids.shape[1]))
        torch.testing.assert_close(session.steps[0].h1, expected)


def test_answers_that_fit_no_batch_are_none(
    sessions: list[Session], answer: Callable[[Session], Any]
) -> None:
    session = sessions[0]
    other = Session(
        session.edge, session.device, 0, 0, "all", {}, [Step((1, 2, 3)) for _ in session.steps]
    )
    assert answer(other) is None


def test_a_codec_that_remembers_is_followed(make: Any, tmp_path: Path) -> None:
    """With temporal, the edge's view of an epoch builds on the one before; the reader's too."""
    from elsa.engine.run import run

    config = make(
        "audit.record_rounds=2",
        "wire.h1=temporal:0.1",
        "federation.local_steps=6",
        "data.limit=60",
        "train.batch_size=8",
    )
    run(config, out=tmp_path / "run")
    sources = open_sources(config)
    _, codecs_of = knowledge_of(config, sources)
    seen = read_sessions(tmp_path / "run/transcript", codecs_of)
    assert all(step.h1 is not None and step.numbers for it in seen for step in it.steps)
    for path in (tmp_path / "run/transcript").glob("*/*/0.*"):
        path.unlink()
    without = read_sessions(tmp_path / "run/transcript", codecs_of)
    assert any(step.h1 is None for it in without for step in it.steps)


def test_labels_are_read_from_gradients_of_the_undefended_wire(
    sessions: list[Session], answer: Callable[[Session], Any], make: Any, sources: Any
) -> None:
    knowledge, _ = knowledge_of(make(), sources)
    classes = knowledge.top.task.labels
    hits = [
        right
        for session in sessions
        for guess, batch in zip(
            labels.from_gradients(knowledge.top, session, classes), answer(session), strict=True
        )
        for right in (guess == batch.labels).tolist()
    ]
    assert sum(hits) / len(hits) > 0.95


def test_noise_on_gradients_hides_labels_and_who_knows_of_it_reads_more(
    sessions: list[Session], answer: Callable[[Session], Any], make: Any, sources: Any
) -> None:
    knowledge, _ = knowledge_of(make(), sources)
    top, classes = knowledge.top, knowledge.top.task.labels
    last = {**sessions[-1].adapters, **sessions[-1].update}
    generator = torch.Generator().manual_seed(0)

    def right(read: Callable[[Session], Any], noise: Noise) -> float:
        hits: list[bool] = []
        for session in sessions:
            seen = replace(session, steps=[])
            for step in session.steps:
                assert step.g2 is not None
                drawn = torch.randn(step.g2.shape, generator=generator)
                seen.steps.append(replace(step, g2=noise.texts(step.g2, step.lengths, drawn)))
            for guess, batch in zip(read(seen), answer(session), strict=True):
                hits += (guess == batch.labels).tolist()
        return sum(hits) / len(hits)

    def blind(session: Session) -> Any:
        return labels.from_gradients(top, session, classes)

    def knowing(noise: Noise) -> Callable[[Session], Any]:
        return lambda session: labels.despite_noise(top, session, classes, noise, last)

    little, some, much = (Noise(0.01, ratio) for ratio in (1e-5, 1.0, 1e4))
    assert right(blind, little) > 0.95 and right(knowing(little), little) > 0.95
    assert right(knowing(some), some) > right(blind, some)
    foretold = right(lambda session: labels.predicted(top, last, session), much)
    assert right(blind, much) < 0.4
    assert right(knowing(much), much) == pytest.approx(foretold, abs=0.02)


def test_sessions_are_linked_by_the_states_that_they_show() -> None:
    generator = torch.Generator().manual_seed(0)
    found = []
    for round_ in range(3):
        for device in range(4):
            states = torch.randn(30, 8, generator=generator) + 2 * device
            steps = [Step((30,), states)]
            found.append(Session("e", f"d{device}", round_, 0, "all", {}, steps))
    assert linking.linked(found) == ([True] * 8, 4)
    assert linking.linked(found[:1]) == ([], 1)


def test_no_transcript_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"audit\.record_rounds"):
        read_sessions(tmp_path, lambda: EXACT)


def test_all_attacks_on_a_run_have_scores_and_the_same_again(recorded: Path) -> None:
    rows = attack_run(recorded, recorded, QUICK, lambda _: None)
    found = {(row.about, row.attack, row.measure): row.score for row in rows}
    assert {about for about, _, _ in found} == {"tokens", "labels", "membership", "linking"}
    for name in ("matching", "known texts", "language"):  # states here depend much on context
        score = found["tokens", name, "recovery"]
        assert score.value > 0.4 > score.chance + 0.2
    shape = found["tokens", "shape", "recovery"]
    assert shape.low > shape.chance + 0.2  # it has distances alone; its laws: test_tokens
    for score in found.values():
        assert score.low <= score.value <= score.high
    assert rows == attack_run(recorded, recorded, QUICK, lambda _: None)


def test_without_gradients_labels_are_predicted_and_nothing_else(make: Any, tmp_path: Path) -> None:
    from elsa.engine.run import run

    frozen = make("audit.record_rounds=2", "partition.kind=iid", "split.freeze=trunk")
    run(frozen, out=tmp_path / "run")
    rows = attack_run(tmp_path / "run", tmp_path / "run", QUICK, lambda _: None)
    assert {row.attack for row in rows if row.about == "labels"} == {"predictions"}


def test_an_audit_of_a_config_stands_beside_the_same_without_defence(
    make: Any, tmp_path: Path
) -> None:
    config = make(
        "ssop.rank=32", "ssop.angle=1.0", "partition.kind=iid", "federation.edge_rounds=1"
    )
    (tmp_path / "c.toml").write_text(dump_toml(config), encoding="utf-8")
    path = audit(tmp_path / "c.toml", [], tmp_path / "out", QUICK)
    whole = json.loads(path.read_text("utf-8"))
    rows = whole["attacks"]
    assert whole["accuracy"].keys() == rows.keys() == {"no defence", "this run"}
    assert "<svg" in (tmp_path / "out/front.svg").read_text("utf-8")
    matching = {
        name: next(row for row in each if row["attack"] == "matching")["score"]["value"]
        for name, each in rows.items()
    }
    assert matching["no defence"] > 0.4
    assert matching["this run"] < 0.1
    page = io.StringIO()
    show(path, Console(file=page, width=200))
    table = page.getvalue()
    assert "no defence" in table and "this run" in table and "inverter, adaptive" in table
    assert f"{matching['this run']:.3f}" in table and str(path) in table

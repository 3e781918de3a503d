"""All attacks on one transcript.

The answers are for scoring, and for what an attack says that it knows; see `Row.knows`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from elsa.audit import labels, linking, membership
from elsa.audit.inverter import Training
from elsa.audit.knowledge import Knowledge, Texts
from elsa.audit.reading import Victim, read_tokens
from elsa.audit.row import Row
from elsa.audit.scores import auc_score, share
from elsa.audit.transcript import Session
from elsa.data.batches import Batch, Examples
from elsa.errors import RunError
from elsa.model.tasks import Classification

Answers = Callable[[Session], Sequence[Batch] | None]
"""What a session was really about, a batch a step; None where that is not known."""


@dataclass(frozen=True)
class Settings:
    """How much is attacked, and with how much effort.

    Attributes:
        texts: texts to read tokens of; and as many members, and others, to tell apart.
        known: texts of each device that "known texts" and "known labels" hold.
        victims: devices whose tokens are read.
        training: of the inverters.
        seed: of everything drawn.
    """

    texts: int = 120
    known: int = 16
    victims: int = 4
    training: Training = field(default_factory=Training)
    seed: int = 0


@dataclass(frozen=True)
class Candidates:
    """Texts with labels of which an attacker asks whether they were trained on.

    Attributes:
        members: were.
        others: were not.
        before, after: adapters before and after the training.
    """

    members: Examples
    others: Examples
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]


def attack(
    sessions: Sequence[Session],
    answers: Answers,
    knowledge: Knowledge,
    candidates: Candidates,
    settings: Settings,
    say: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """The scores of all attacks that the transcript has material for.

    Raises:
        RunError: no session can be matched with its answers, or none can be read.
    """
    rows = []
    first = (sessions[0].round, sessions[0].edge_round)
    opening = [it for it in sessions if (it.round, it.edge_round) == first][: settings.victims]
    victims = [
        victim for it in opening if (victim := _victim(it, answers(it), settings, len(opening)))
    ]
    if not victims:
        raise RunError("nothing in the transcript can be read and matched with its texts")
    rows += read_tokens(
        knowledge, opening[0].adapters, victims, settings.training, settings.seed, say
    )
    if isinstance(knowledge.top.task, Classification):
        say("labels")
        rows += _labels(sessions, answers, knowledge, knowledge.top.task.labels, settings)
    say("membership")
    rows += _membership(knowledge, candidates, settings)
    rows += _linking(sessions, settings)
    return rows


def _victim(
    session: Session, batches: Sequence[Batch] | None, settings: Settings, devices: int
) -> Victim | None:
    if batches is None:
        return None
    read = [
        (number, step.h1, batch)
        for number, (step, batch) in enumerate(zip(session.steps, batches, strict=True))
        if step.h1 is not None
    ]
    if not read:
        return None
    lengths = tuple(length for _, _, batch in read for length in batch.lengths)
    tokens = torch.cat([batch.input_ids[batch.mask > 0] for _, _, batch in read])
    seen = Texts(torch.cat([h1 for _, h1, _ in read]), lengths, tokens)
    steps = [number for number, _, batch in read for _ in batch.lengths]
    known = min(settings.known, len(lengths) // 2)
    generator = np.random.default_rng((settings.seed, len(lengths)))
    rest = known + generator.permutation(len(lengths) - known)
    chosen = rest[: -(-settings.texts // devices)].tolist()
    return Victim(seen, range(known), chosen, steps)


def _labels(
    sessions: Sequence[Session],
    answers: Answers,
    knowledge: Knowledge,
    classes: int,
    settings: Settings,
) -> list[Row]:
    matched: list[bool] = []
    nearest: list[bool] = []
    truths: list[int] = []
    others: list[int] = []
    foretold: list[bool] = []
    every: list[int] = []
    weighed: list[bool] = []
    last = {**sessions[-1].adapters, **sessions[-1].update}
    for session in sessions:
        batches = answers(session)
        if batches is None or session.edge_round:
            continue
        truth = [batch.labels for batch in batches]
        guesses = labels.from_gradients(knowledge.top, session, classes)
        noise = knowledge.defence.gradients
        if noise is not None:
            best = labels.despite_noise(knowledge.top, session, classes, noise, last)
            for guess, real in zip(best, truth, strict=True):
                if guess is not None:
                    weighed += (guess == real).tolist()
        marks = [labels.directions(session, step) for step in session.steps]
        for guess, real in zip(guesses, truth, strict=True):
            if guess is not None:
                matched += (guess == real).tolist()
                truths += real.tolist()
        for guess, real in zip(labels.predicted(knowledge.top, last, session), truth, strict=True):
            if guess is not None:
                foretold += (guess == real).tolist()
                every += real.tolist()
        usable = [(m, r) for m, r in zip(marks, truth, strict=True) if m is not None]
        if len(usable) < 2:
            continue
        held, all_real = torch.cat([m for m, _ in usable]), torch.cat([r for _, r in usable])
        known = min(settings.known, len(all_real) // 2)
        read = labels.from_known(held[:known], all_real[:known], held[known:])
        nearest += (read == all_real[known:]).tolist()
        others += all_real[known:].tolist()
    found = []
    became = "the top as the edge sent it and as it became, the noise but for its secret"
    for name, hits, right, knows in (
        ("gradients", matched, truths, "the top as the edge sent it"),
        ("gradients, adaptive", weighed, truths, became),
        ("known labels", nearest, others, f"labels of {settings.known} texts of each edge round"),
        ("predictions", foretold, every, "the top as it became, and nothing of the labels"),
    ):
        if hits:
            chance = max(right.count(it) for it in set(right)) / len(right)
            score = share(hits, None, chance, settings.seed)
            found.append(Row("labels", name, "accuracy", knows, score))
    return found


def _membership(knowledge: Knowledge, candidates: Candidates, settings: Settings) -> list[Row]:
    generator = np.random.default_rng((settings.seed, len(candidates.members)))
    losses = {}
    for name, examples in (("member", candidates.members), ("other", candidates.others)):
        rows = generator.permutation(len(examples))[: settings.texts]
        some = examples.take(rows)
        for when, adapters in (("before", candidates.before), ("after", candidates.after)):
            losses[name, when] = np.asarray(membership.losses(knowledge, adapters, some))
    knows = "the adapters after training, texts with their labels"
    plain = [-losses[who, "after"] for who in ("member", "other")]
    gained = [losses[who, "before"] - losses[who, "after"] for who in ("member", "other")]
    return [
        Row("membership", name, "AUC", told, auc_score(one.tolist(), two.tolist(), settings.seed))
        for name, (one, two), told in (
            ("loss", plain, knows),
            ("loss, calibrated", gained, f"{knows}, and the adapters before"),
        )
    ]


def _linking(sessions: Sequence[Session], settings: Settings) -> list[Row]:
    hits, devices = linking.linked(sessions)
    if not hits:
        return []
    score = share(hits, None, 1 / devices, settings.seed)
    knows = "one earlier edge round of each device"
    return [Row("linking", "mean states", "accuracy", knows, score)]

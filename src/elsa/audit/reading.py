"""The attacks that read tokens, on the texts of a transcript, scored with the answers.

Shapes: T tokens of some texts without padding, D hidden size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from elsa.audit.defence import NONE
from elsa.audit.geometry import by_geometry
from elsa.audit.inverter import Training, learn
from elsa.audit.knowledge import Knowledge, Texts
from elsa.audit.language import Language, with_language
from elsa.audit.row import Row
from elsa.audit.scores import rouge_l, share
from elsa.audit.tokens import Dictionary, adaptive, known
from elsa.data.batches import Examples

HEARD = 60
"""Public texts kept out of the dictionary, on which an adaptive attacker tries what does best."""
SHAPED = 600
"""Public texts that rotated states are turned onto."""
KNOWS = {
    "matching": "public model and text",
    "matching, adaptive": "public model and text, the defence but for its secrets",
    "shape": "public model and text, that states are rotated",
    "language": "public model and text with its language, the defence but for its secrets",
    "known texts": "public model and text, {known} texts of each device with their states",
    "inverter": "public model and text",
    "inverter, adaptive": "public model and text, the defence but for its secrets",
}


@dataclass(frozen=True, eq=False)
class Victim:
    """A device's texts as the edge saw them.

    Attributes:
        seen: all its texts; the tokens in it are for scoring alone.
        known: numbers of those that the attacker holds, in the attacks that say so.
        secret: numbers of those that are to be read.
        steps: the batch that each text came in.
    """

    seen: Texts
    known: Sequence[int]
    secret: Sequence[int]
    steps: Sequence[int]


def read_tokens(
    knowledge: Knowledge,
    adapters: Mapping[str, Tensor],
    victims: Sequence[Victim],
    training: Training,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Token recovery (top-1) and ROUGE-L of every attack, ends of texts not counted.

    Args:
        knowledge: what the attacker knows.
        adapters: of the devices' bottoms, as the edge sent them before the texts came.
        victims: whose texts are read.
        training: of the inverters.
        seed: of everything drawn.
        say: told what takes time.
    """
    say("running public text through the public bottom")
    natural = knowledge.see(knowledge.public, adapters)
    made_up = knowledge.see(knowledge.covering(seed), adapters)
    order = np.random.default_rng(seed).permutation(len(natural.lengths)).tolist()
    heard, rest = natural.take(order[:HEARD]), natural.take(order[HEARD:])
    public = _joined([rest, made_up])
    dictionary = Dictionary.of(public)
    secret = _joined([victim.seen.take(victim.secret) for victim in victims])
    defence, guesses = knowledge.defence, dict[str, Tensor]()
    say("matching")
    guesses["matching"] = dictionary.reader()(secret.states)
    say("matching, adaptive")
    clipped = dictionary if defence.noise is None else dictionary.clipped(defence.noise)
    guesses["matching, adaptive"] = adaptive(clipped, heard, defence, seed)(secret.states)
    say("language")
    language = Language.of(rest, len(knowledge.embeddings))
    guesses["language"] = with_language(clipped, language, heard, defence, seed)(secret)
    say("shape")
    some = rest.take(range(min(SHAPED, len(rest.lengths))))
    guesses["shape"] = torch.cat(
        [_by_shape(knowledge, dictionary, some, victim) for victim in victims]
    )
    say("known texts")
    guesses["known texts"] = torch.cat(list(_with_known(knowledge, adapters, dictionary, victims)))
    for name, assumed in (("inverter", NONE), ("inverter, adaptive", defence)):
        if name != "inverter" and defence.exact:
            guesses[name] = guesses["inverter"]
            continue
        say(f"{name} learns")
        inverter = learn(knowledge.embeddings, public, assumed, training, seed)
        guesses[name] = inverter.read(secret)
    counts = torch.bincount(natural.tokens[~torch.isin(natural.tokens, knowledge.ends)])
    always = torch.full_like(secret.tokens, int(counts.argmax()))
    return [
        row
        for name, guess in guesses.items()
        for row in _rows(name, guess, secret, always, knowledge.ends, victims, seed)
    ]


def _with_known(
    knowledge: Knowledge,
    adapters: Mapping[str, Tensor],
    dictionary: Dictionary,
    victims: Sequence[Victim],
) -> Iterator[Tensor]:
    for victim in victims:
        held, secret = victim.seen.take(victim.known), victim.seen.take(victim.secret)
        pieces = held.tokens.split_with_sizes(list(held.lengths))
        truth = knowledge.see(Examples([it.numpy().astype(np.int32) for it in pieces]), adapters)
        yield known(dictionary, truth, held)(secret.states)


def _by_shape(
    knowledge: Knowledge, dictionary: Dictionary, natural: Texts, victim: Victim
) -> Tensor:
    """What is read of the secret texts: turned alike in all batches, or in each its own way."""
    seen, fresh = victim.seen, knowledge.defence.fresh == "batch"
    groups = list(victim.steps) if fresh else [0] * len(victim.steps)
    found: dict[int, Tensor] = {}
    for group in sorted({groups[it] for it in victim.secret}):
        members = [it for it, other in enumerate(groups) if other == group]
        texts = seen.take(members)
        guess = by_geometry(dictionary, natural, texts, knowledge.ends)
        found |= dict(zip(members, guess.split_with_sizes(list(texts.lengths)), strict=True))
    return torch.cat([found[it] for it in victim.secret])


def _rows(
    attack: str,
    guess: Tensor,
    secret: Texts,
    always: Tensor,
    ends: Tensor,
    victims: Sequence[Victim],
    seed: int,
) -> list[Row]:
    counted = ~torch.isin(secret.tokens, ends)
    sizes = list(secret.lengths)

    def by_text(values: Tensor) -> list[list[int]]:
        return [
            part[kept].tolist()
            for part, kept in zip(
                values.split_with_sizes(sizes), counted.split_with_sizes(sizes), strict=True
            )
        ]

    truth, read, constant = by_text(secret.tokens), by_text(guess), by_text(always)
    items = [len(text) for text in truth]

    def hits(texts: list[list[int]]) -> list[int]:
        return [
            sum(a == b for a, b in zip(one, other, strict=True))
            for one, other in zip(truth, texts, strict=True)
        ]

    def rouge(texts: list[list[int]]) -> list[float]:
        return [rouge_l(one, other) for one, other in zip(truth, texts, strict=True)]

    held = len(victims[0].known)
    knows = KNOWS[attack].format(known=held)
    chance = sum(hits(constant)) / max(sum(items), 1)
    return [
        Row("tokens", attack, "recovery", knows, share(hits(read), items, chance, seed)),
        Row(
            "tokens",
            attack,
            "ROUGE-L",
            knows,
            share(rouge(read), None, float(np.mean(rouge(constant))), seed),
        ),
    ]


def _joined(parts: Sequence[Texts]) -> Texts:
    return Texts(
        torch.cat([part.states for part in parts]),
        tuple(length for part in parts for length in part.lengths),
        torch.cat([part.tokens for part in parts]),
    )

"""One line of an audit: an attack, what it knew, how well it did."""

from dataclasses import dataclass

from elsa.audit.scores import Score


@dataclass(frozen=True)
class Row:
    """An attack and its score.

    Attributes:
        about: what it is after: "tokens", "labels", "membership" or "linking".
        attack: its name.
        measure: what the score counts.
        knows: what the attacker knows besides the transcript, in words.
        score: how well it did.
    """

    about: str
    attack: str
    measure: str
    knows: str
    score: Score

"""What the wire study compares: data sets, arms, and the cells that they make with the seeds.

An arm that trains over the split is one line: a name, a family (colour and marker of the plot) and
settings of `elsa run`. Every hop is spelled out, so that no arm changes when a preset does.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from federated import RATE

Kind = Literal["split", "lora", "full"]

_SMALL = ("train.batch_size=8", "federation.rounds=2")
"""With one round all arms answer with the commonest label."""
DATASETS: dict[str, tuple[str, ...]] = {
    "trec": ("data.path=trec", "federation.rounds=10"),
    "r8": ("data.path=r8", "model.max_tokens=64", "federation.rounds=5"),
    "trec-short": ("data.path=trec", "federation.rounds=4"),
    "r8-short": ("data.path=r8", "data.limit=3000", "model.max_tokens=24", *_SMALL),
    "sms-short": ("data.path=sms", "data.limit=3000", "model.max_tokens=32", *_SMALL),
}
"""What each data set changes in the quick start: whole runs, and short ones for the many arms."""

TITLES = {
    "trec": "TREC-6 questions, 10 rounds",
    "r8": "Reuters R8, 5 rounds",
    "trec-short": "TREC-6 questions, 4 rounds",
    "r8-short": "3,000 rows of Reuters R8, 2 rounds",
    "sms-short": "3,000 rows of SMS spam, 2 rounds",
}

SETUP = (
    "federation.devices=10",
    "federation.edges=2",
    "partition.kind=dirichlet",
    "partition.alpha=0.5",
    "evaluate.every=1000",  # the last round is always evaluated
    "run.threads=1",
)
"""Settings of every cell."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: for people.
        family: what it is one of; see `wire_plot`.
        settings: of `elsa run`, besides those of data set and study.
        kind: over the split, whole models with LoRA, or all weights (benchmarks/federated.py).
    """

    name: str
    family: str
    settings: tuple[str, ...] = ()
    kind: Kind = "split"

    @property
    def slug(self) -> str:
        """The name as a folder."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")


@dataclass(frozen=True)
class Cell:
    """One run."""

    dataset: str
    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        """DATASET/ARM/SEED."""
        return f"{self.dataset}/{self.arm.slug}/{self.seed}"


def hops(states: str, gradients: str = "") -> tuple[str, ...]:
    """A codec for hidden states both ways, and one for gradients both ways."""
    other = gradients or states
    return (
        f"wire.h1={states}",
        f"wire.h2={states}",
        f"wire.g2={other}",
        f"wire.g1={other}",
    )


def ssop(rank: int, angle: float) -> tuple[str, ...]:
    """The perturbation of what an edge sees."""
    return (f"ssop.rank={rank}", f"ssop.angle={angle}")


BASE = ("wire.preset=exact",)
"""What all arms start from. It was the default when the first cells were made, so it is no part of
the settings that cells are known by."""

EXACT = Arm("exact", "uncompressed", hops("exact"))
"""What accuracies are compared with."""

ARMS: tuple[Arm, ...] = (
    EXACT,
    Arm("federated LoRA", "no split", ("train.learning_rate=0.004",), "lora"),
    Arm("full averaging", "no split", (f"train.learning_rate={RATE}",), "full"),
    Arm("int8", "plain integers", hops("quantize:8:token:uniform:nearest")),
    Arm("int4", "plain integers", hops("quantize:4:token:uniform:nearest")),
    *(
        Arm(f"rotated {bits} bit", "rotated integers", hops(f"rotate+quantize:{bits}:token:gauss"))
        for bits in (4, 3, 2)
    ),
    *(Arm(f"fill {error}", "water-filled bits", hops(f"fill:{error}")) for error in (0.2, 0.4)),
    *(
        Arm(
            f"temporal {states} in bands fill {gradients} bf16 adapters",
            "temporal + fill",
            (*hops(f"temporal:{states}:64", f"fill:{gradients}"), "wire.adapters=bfloat16"),
        )
        for states, gradients in ((0.1, 0.4), (0.15, 0.3), (0.3, 0.5))
    ),
    Arm("top 48", "top-k", hops("top:48")),
    Arm("top 24", "top-k", hops("top:24")),
    Arm("sketch 2", "count sketch", hops("sketch:2")),
    Arm("sketch 4", "count sketch", hops("sketch:4")),
    Arm("sketch 8", "count sketch", hops("sketch:8")),
    Arm("centred sketch 2", "count sketch", hops("center:token+sketch:2")),
    Arm("sketch 2 with feedback", "count sketch", hops("feedback+sketch:2:0.35")),
    Arm(
        "sketch 2 after subspace",
        "count sketch",
        hops("subspace:16+sketch:2", "sketch:2"),
    ),
    Arm("SS-OP 16 full", "SS-OP", hops("exact") + ssop(16, 1.0)),
    Arm("SS-OP 16 0.3", "SS-OP", hops("exact") + ssop(16, 0.3)),
    Arm("paper: sketch 2 SS-OP 16", "SS-OP", hops("sketch:2") + ssop(16, 1.0)),
)
assert len({arm.slug for arm in ARMS}) == len(ARMS)


def choose(words: Sequence[str]) -> list[Arm]:
    """The arms that the words name: exactly by slug, else all whose slug or name holds the word.

    Raises:
        ValueError: a word names none.
    """
    if not words:
        return list(ARMS)
    chosen: set[Arm] = set()
    for word in words:
        exact = [arm for arm in ARMS if arm.slug == word]
        found = exact or [arm for arm in ARMS if word in arm.slug or word in arm.name]
        if not found:
            raise ValueError(f"no arm '{word}'; there are: {', '.join(arm.slug for arm in ARMS)}")
        chosen.update(found)
    return [arm for arm in ARMS if arm in chosen]


def settings_of(cell: Cell, extra: Sequence[str]) -> list[str]:
    """All that a cell changes in the quick start."""
    seed = f"run.seed={cell.seed}"
    return [seed, *SETUP, *DATASETS[cell.dataset], *cell.arm.settings, *extra]

"""The cells of the study of clustering and trust: what is run, in which order, with which settings.

Five parts. Runs are short, so that the whole takes two or three hours of one core: texts are cut to
16 tokens, batches are of 8 (16 for trust: with less, flipped labels cannot be seen yet), and a
device takes 24 local steps at most, 72 in the long runs.

groups   30 devices of known groups, one edge round: are the groups found, by which way states moved
         and by Gaussians as in the paper?
trust    20 devices, two rare and two small ones among them: whom does trust tell apart?
attacks  10 devices below one edge: what is accuracy worth under attack, rule by rule?
long     the same for three times as many rounds: what is left of it when training goes on? Other
         seeds than elsewhere, because trust was mended after runs like these with seeds 1 and 2.
edges    12 devices, 3 edges: what does it buy to put similar devices together?
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clustering_data import write_skewed

PARTS = ("groups", "trust", "attacks", "long", "edges")
GROUPS = 3
RARE, SMALL = 2, 2
LATER = 3
"""How far the seeds of long runs are from those of others."""

KINDS = ("label-flip", "random", "sign-flip")
RATES = (30, 40, 10)
RULES: dict[str, tuple[str, ...]] = {
    "mean": (),
    "trust": ("cluster.trust=true", "cluster.probe_count=64"),
    "median": ("aggregate.edge_rule=median",),
    "trimmed": ("aggregate.edge_rule=trimmed-mean", "aggregate.trim=0.3"),
    "krum": ("aggregate.edge_rule=krum", "aggregate.edge_byzantine=3"),
    "multi-krum": ("aggregate.edge_rule=multi-krum", "aggregate.edge_byzantine=3"),
}
STRATEGIES = ("random", "latency", "behaviour", "mixed")
PARTITIONS: dict[str, tuple[str, ...]] = {
    "dirichlet-0.1": ("partition.kind=dirichlet", "partition.alpha=0.1", "partition.min_rows=8"),
    "dirichlet-0.5": ("partition.kind=dirichlet", "partition.alpha=0.5", "partition.min_rows=8"),
    "iid": ("partition.kind=iid",),
}

SETUP = (
    "run.threads=1",
    "model.max_tokens=16",
    "train.batch_size=8",
    "data.path=trec",
    "evaluate.every=1000",  # the last round is always evaluated
)
_OWN: dict[str, tuple[str, ...]] = {
    "groups": (
        "federation.devices=30",
        f"federation.edges={GROUPS}",
        "federation.rounds=1",
        "federation.edge_rounds=1",
        "federation.local_steps=10",
        "cluster.strategy=behaviour",
    ),
    "trust": (
        "federation.devices=20",
        "federation.edges=2",
        "federation.rounds=1",
        "federation.edge_rounds=2",
        "federation.local_steps=10",
        "train.batch_size=16",
        f"partition.rare_devices={RARE}",
        f"partition.small_devices={SMALL}",
        "partition.small_rows=16",
        *RULES["trust"],
    ),
    "attacks": (
        "federation.devices=10",
        "federation.edges=1",
        "federation.rounds=2",
        "federation.edge_rounds=2",
        "federation.local_steps=6",
        "partition.alpha=1.0",
    ),
    "long": (
        "federation.devices=10",
        "federation.edges=1",
        "federation.rounds=6",
        "federation.edge_rounds=2",
        "federation.local_steps=6",
        "partition.alpha=1.0",
    ),
    "edges": (
        "federation.devices=12",
        f"federation.edges={GROUPS}",
        "federation.rounds=4",
        "federation.edge_rounds=2",
        "federation.local_steps=3",
        "data.limit=1500",
        "network.latency_spread=0.5",
        "cluster.probe_count=64",
        "evaluate.every=1",
    ),
}


@dataclass(frozen=True)
class Cell:
    """One run: `arm` is what is compared within a part."""

    part: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """PART/ARM/SEED."""
        return f"{self.part}/{self.arm}/{self.seed}"


def arms(part: str) -> list[str]:
    """Names of the arms of a part, the most telling first."""
    if part == "groups":
        return ["task", "skew", "task-gaussian", "skew-gaussian"]
    if part == "trust":
        wanted = [f"{kind}-{rate}" for rate in RATES for kind in KINDS]
        return ["none-0", *wanted, "free-rider-30", "scaled-30"]
    if part == "attacks":
        return [f"{rule}-{kind}" for rule in RULES for kind in ("none", "sign-flip", *KINDS[:2])]
    if part == "long":
        return [f"{rule}-{kind}" for rule in ("trust", "mean") for kind in ("none", "sign-flip")]
    return [f"{layout}-{strategy}" for layout in PARTITIONS for strategy in STRATEGIES]


def settings_of(cell: Cell) -> tuple[str, ...]:
    """Settings of `elsa run`; for groups by skew, besides those of `data_of`."""
    own: tuple[str, ...] = ()
    if cell.part == "groups":
        drawn, _, kind = cell.arm.partition("-")
        rows = [f'{{name="{it}",path="{it}",limit=1500}}' for it in ("trec", "sms", "r8")]
        own = (f"task=[{','.join(rows)}]", "partition.kind=iid") if drawn == "task" else ()
        own = (*own, f"cluster.fingerprint={kind or 'move'}")
    elif cell.part == "trust":
        kind, _, rate = cell.arm.rpartition("-")
        own = _attack(kind, int(rate))
    elif cell.part in ("attacks", "long"):
        rule = next(it for it in sorted(RULES, key=len, reverse=True) if cell.arm.startswith(it))
        own = (*RULES[rule], *_attack(cell.arm.removeprefix(f"{rule}-"), 30))
    else:
        layout, _, strategy = cell.arm.rpartition("-")
        own = (*PARTITIONS[layout], f"cluster.strategy={strategy}")
    return (*SETUP, *_OWN[cell.part], *own, f"run.seed={cell.seed}")


def data_of(cell: Cell, folder: Path) -> tuple[str, ...]:
    """Settings that name files of rows, made below `folder`; most cells need none."""
    if cell.part != "groups" or not cell.arm.startswith("skew"):
        return ()
    write_skewed(folder, "trec", devices=30, groups=GROUPS, rows=120, seed=cell.seed)
    return (
        f"data.path={folder}/train.csv",
        f"data.test={folder}/test.csv",
        "data.group=device",
        "partition.kind=natural",
    )


def ordered(parts: tuple[str, ...], seeds: tuple[int, ...]) -> Iterator[Cell]:
    """All cells; first, seed by seed, those that the goals are about, then all others likewise."""
    goals = [
        *(("groups", name) for name in arms("groups")),
        *(("trust", f"{kind}-30") for kind in KINDS),
        *(("attacks", name) for name in ("mean-none", "trust-sign-flip", "mean-sign-flip")),
        ("attacks", "trust-none"),
    ]
    first = [Cell(part, name, seed) for seed in seeds for part, name in goals]
    rest = [
        Cell(part, name, seed + LATER * (part == "long"))
        for seed in seeds
        for part in PARTS
        for name in arms(part)
    ]
    yield from (cell for cell in dict.fromkeys([*first, *rest]) if cell.part in parts)


def _attack(kind: str, rate: int) -> tuple[str, ...]:
    if kind == "none":
        return ()
    doubled = ("attack.scale=10",) if kind == "scaled" else ()
    return (f"attack.kind={kind}", f"attack.fraction={rate / 100}", *doubled)

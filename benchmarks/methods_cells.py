"""The cells of the comparison of methods: what is run, in which order, with which settings.

A setting is a corpus, how its rows lie on the devices, and whether a fifth of them is poisoned. A
part is a setting and methods, or the choice of learning rates on a corpus; parts are in the order
in which they decide something. Runs are short, so that the whole takes some hours of one core:
texts are cut, batches are of 8, and a device takes 24 or 32 local steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elsa.compare.cells import Cell
from elsa.config.load import load_config
from elsa.config.methods import METHODS
from elsa.config.schema import Config

SEEDS = (0, 1, 2)
TUNING_SEED = 100
RATES = (1e-3, 4e-3, 1.6e-2)
AGAINST = "hierarchical-fedavg"
"""What differences are to."""

MAIN = (
    "centralised",
    "fedavg",
    "fedprox",
    "hierarchical-fedavg",
    "splitlora",
    "splitfed-v1",
    "splitfed-v2",
    "hierarchical-split",
    "elsa",
)
POISONED = (
    "fedavg",
    "hierarchical-fedavg",
    "splitfed-v1",
    "hierarchical-split",
    "elsa",
    "elsa-untrusted",
)
ABLATIONS = (
    "elsa-unclustered",
    "elsa-random",
    "elsa-latency",
    "elsa-untrusted",
    "elsa-fixed-split",
    "elsa-exact",
    "elsa-sketch",
    "elsa-ssop",
)
LANGUAGE = ("hierarchical-fedavg", "splitfed-v2", "hierarchical-split", "elsa")
TUNED_AS: Mapping[str, str] = {
    "splitfed-v1": "fedavg",
    "hierarchical-split": "hierarchical-fedavg",
    **dict.fromkeys(ABLATIONS, "elsa"),
}
"""Whose learning rate a method takes: with an exact wire two of them learn what another learns
(tests/equivalence/test_methods.py); an ablation takes that of what it is a part of."""


@dataclass(frozen=True)
class Corpus:
    """Rows, the model that learns them, and a run's length; `preset` is what is changed."""

    name: str
    title: str
    settings: tuple[str, ...]
    methods: tuple[str, ...] = MAIN
    preset: str = "quickstart"
    tuning: tuple[str, ...] = ("federation.rounds=2",)
    """What is shorter where learning rates are chosen."""


_ENCODER = (
    "federation.devices=20",
    "federation.edges=4",
    "federation.rounds=4",
    "federation.edge_rounds=2",
    "train.batch_size=8",
    "evaluate.every=4",  # once, at the end: it costs as much as half a round
    "data.holdout_fraction=0.3",
    "network.latency_spread=0.5",  # or else all edges are as near
    "cluster.probe_count=32",
)
CORPORA: Mapping[str, Corpus] = {
    it.name: it
    for it in (
        Corpus(
            "trec",
            "TREC-6",
            ("data.path=trec", "model.max_tokens=16", "federation.local_steps=4", *_ENCODER),
        ),
        Corpus(
            "r8",
            "Reuters R8",
            (
                "data.path=r8",
                "data.limit=4000",
                "model.max_tokens=20",
                "federation.local_steps=3",
                *_ENCODER,
            ),
        ),
        Corpus(
            "20news",
            "20 Newsgroups",
            (
                "data.path=20news",
                "data.limit=4000",
                "model.max_tokens=24",
                "federation.local_steps=4",
                *_ENCODER,
            ),
        ),
        Corpus(
            "smollm2",
            "SmolLM2 on NQ-open",
            (
                "data.limit=480",
                "data.holdout_fraction=0.2",
                "federation.devices=8",
                "federation.edges=4",
                "federation.rounds=2",
                "federation.edge_rounds=2",
                "federation.local_steps=3",
                "train.batch_size=4",
                "evaluate.every=1",
                "network.latency_spread=0.5",
                # public texts must be others than the task's
                "cluster.probes=trec",
                "cluster.probe_count=8",
                "wire.public=trec",
            ),
            methods=LANGUAGE,
            preset="smollm2",
            tuning=("federation.rounds=1",),
        ),
    )
}
LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "0.5": ("partition.kind=dirichlet", "partition.alpha=0.5", "partition.min_rows=30"),
    # With more rows there is no such draw of six or eight classes for twenty devices.
    "0.1": ("partition.kind=dirichlet", "partition.alpha=0.1", "partition.min_rows=4"),
    "iid": ("partition.kind=iid",),
}
TUNING_LAYOUT = "0.5"
ATTACK = ("attack.kind=label-flip", "attack.fraction=0.2")


@dataclass(frozen=True)
class Setting:
    """Where methods are compared."""

    corpus: Corpus
    layout: str
    poisoned: bool = False
    tuning: bool = False

    @property
    def name(self) -> str:
        """CORPUS-LAYOUT, with -poisoned behind; tune-CORPUS."""
        if self.tuning:
            return f"tune-{self.corpus.name}"
        return f"{self.corpus.name}-{self.layout}" + ("-poisoned" if self.poisoned else "")

    @property
    def title(self) -> str:
        """For people."""
        layout = "IID" if self.layout == "iid" else f"Dirichlet {self.layout}"
        return f"{self.corpus.title}, {layout}" + (", a fifth poisoned" if self.poisoned else "")

    @property
    def settings(self) -> tuple[str, ...]:
        """What all of its cells change in the preset."""
        return (
            *self.corpus.settings,
            *LAYOUTS[self.layout],
            *(ATTACK if self.poisoned else ()),
            *(self.corpus.tuning if self.tuning else ()),
        )

    def config(self) -> Config:
        """What its cells have in common."""
        return load_config(self.corpus.preset, [*self.settings, f"run.name={self.name}"])

    def known_by(self, cell: Cell) -> list[str]:
        """What a cell's result is kept with: one made with anything else is refused.

        What a method sets to what would hold without it changes nothing, and is left out.
        """
        base = self.config().model_dump()
        settings = METHODS[cell.method].settings.items()
        own = {key: value for key, value in settings if _held(base, key) != value}
        return [
            f"preset={self.corpus.preset}",
            *self.settings,
            f"run.method={cell.method}",
            *(f"{key}={value}" for key, value in own.items()),
            f"run.seed={cell.seed}",
            f"train.learning_rate={cell.rate!r}",
        ]


def _held(config: Mapping[str, Any], key: str) -> Any:
    """What a dumped config has at a key with dots."""
    for name in key.split("."):
        config = config[name]
    return config


@dataclass(frozen=True)
class Part:
    """A setting and methods: what `--parts` names."""

    name: str
    setting: Setting
    methods: tuple[str, ...]

    def cells(self, rates: Mapping[str, float], seeds: tuple[int, ...] = SEEDS) -> list[Cell]:
        """Its cells, seed by seed, so that some of them already compare all methods.

        Args:
            rates: by method, as chosen; methods without one have no cells.
            seeds: of the runs; tuning has its own.
        """
        if self.setting.tuning:
            return [
                Cell(name, TUNING_SEED, rate, tuning=True)
                for name in self.methods
                for rate in RATES
            ]
        return [
            Cell(name, seed, rates[TUNED_AS.get(name, name)])
            for seed in seeds
            for name in self.methods
            if TUNED_AS.get(name, name) in rates
        ]


def _parts() -> list[Part]:
    trec, r8, news, language = CORPORA.values()

    def clean(corpus: Corpus, layout: str) -> Part:
        setting = Setting(corpus, layout)
        return Part(setting.name, setting, corpus.methods)

    def poisoned(corpus: Corpus) -> Part:
        setting = Setting(corpus, "0.5", poisoned=True)
        return Part(setting.name, setting, POISONED)

    def ablations(setting: Setting, of: tuple[str, ...]) -> Part:
        left = tuple(name for name in ABLATIONS if name not in of)
        return Part(f"{setting.name}-ablations", setting, left)

    def tuning(corpus: Corpus) -> Part:
        layout = "iid" if corpus is language else TUNING_LAYOUT
        setting = Setting(corpus, layout, tuning=True)
        own = tuple(name for name in corpus.methods if name not in TUNED_AS)
        return Part(setting.name, setting, own)

    return [
        tuning(trec),
        clean(trec, "0.5"),
        clean(trec, "0.1"),
        poisoned(trec),
        ablations(Setting(trec, "0.1"), MAIN),
        ablations(Setting(trec, "0.5", poisoned=True), POISONED),
        tuning(r8),
        clean(r8, "0.5"),
        clean(r8, "0.1"),
        tuning(news),
        clean(news, "0.5"),
        clean(news, "0.1"),
        *(clean(it, "iid") for it in (trec, r8, news)),
        tuning(language),
        clean(language, "iid"),
        poisoned(r8),
        poisoned(news),
    ]


PARTS: Mapping[str, Part] = {it.name: it for it in _parts()}
"""All parts by name, what decides first before the rest."""

"""The methods that can be compared: each a row of settings, over the same parts.

A method's settings win over those of a config, whose data, model, devices and budget stay. Nothing
else knows of methods: what a row names are ordinary settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elsa.config.spelling import nearest

if TYPE_CHECKING:
    from elsa.config.schema import Config

Table = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """One way to train.

    Attributes:
        title: for tables.
        what: what it is, in a sentence.
        settings: what makes it, by dotted key.
        flat: whether there is one server and no tier of edges below it. Its rounds are then as
            short as the edge rounds of the others, and as many: devices meet as often.
    """

    title: str
    what: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    flat: bool = False

    @property
    def all_settings(self) -> dict[str, Any]:
        """What a config of this method holds, by dotted key."""
        return {**_PLAIN, **(_FLAT if self.flat else {}), **self.settings}

    def applied(self, table: Mapping[str, Any]) -> Table:
        """A whole config as a table, made one of this method; the samples of a run stay as many."""
        made = _copied(table)
        if self.flat:
            federation, evaluate = made["federation"], made["evaluate"]
            federation["rounds"] *= federation["edge_rounds"]
            evaluate["every"] *= federation["edge_rounds"]
        for key, value in self.all_settings.items():
            *path, last = key.split(".")
            inner = made
            for name in path:
                inner = inner[name]
            inner[last] = value
        return made


_PLAIN: Mapping[str, Any] = {
    "federation.trunk": "per-device",
    "federation.pooled": False,
    "split.layout": "three-part",
    "split.mode": "fixed",
    "split.freeze": "none",
    "cluster.strategy": "none",
    "cluster.trust": False,
    "aggregate.edge_rule": "mean",
    "aggregate.cloud_rule": "mean",
    "aggregate.factors": "separate",
    "aggregate.mu": 0.0,
    "aggregate.server": "none",
    "aggregate.late": "drop",
    "wire.preset": "exact",
    "wire.h1": "",
    "wire.h2": "",
    "wire.g2": "",
    "wire.g1": "",
    "wire.adapters": "",
    "ssop.rank": 0,
    "noise.ratio": 0.0,
    "noise.gradient_ratio": 0.0,
    "noise.update_ratio": 0.0,
}
"""What holds unless a method says otherwise."""

# The one server is the cloud: what stands for the link between them takes no time.
_FLAT: Mapping[str, Any] = {
    "federation.edges": 1,
    "federation.edge_rounds": 1,
    "network.edge_cloud.latency_ms": 0.0,
    "network.edge_cloud.up_mbps": 1e9,
    "network.edge_cloud.down_mbps": 1e9,
}
_SERIAL: Mapping[str, Any] = {"train.in_flight": 1}
_WHOLE: Mapping[str, Any] = {"split.layout": "whole", **_SERIAL}
_ELSA: Mapping[str, Any] = {
    "split.mode": "fitted",
    "cluster.strategy": "behaviour",
    "cluster.trust": True,
    "wire.preset": "balanced",
}

METHODS: Mapping[str, Method] = {
    "centralised": Method(
        "centralised PEFT",
        "the whole model, the rows of all devices in one place",
        {**_WHOLE, "federation.pooled": True},
        flat=True,
    ),
    "fedavg": Method(
        "FedAvg", "LoRA on the whole model on each device, one server", _WHOLE, flat=True
    ),
    "fedprox": Method(
        "FedProx",
        "FedAvg with a pull of 0.01 to the round's adapters",
        {**_WHOLE, "aggregate.mu": 0.01},
        flat=True,
    ),
    "hierarchical-fedavg": Method(
        "hierarchical FedAvg", "FedAvg at edges, and of edges at the cloud", _WHOLE
    ),
    "splitlora": Method(
        "SplitLoRA",
        "two parts, one server that holds the head, one set of adapters there, and all labels",
        {"split.layout": "two-part", "federation.trunk": "shared", **_SERIAL},
        flat=True,
    ),
    "splitfed-v1": Method(
        "SplitFed v1", "three parts, one server, a copy of its adapters for each device", flat=True
    ),
    "splitfed-v2": Method(
        "SplitFed v2",
        "three parts, one server, one set of its adapters for the devices in turn",
        {"federation.trunk": "sequential", **_SERIAL},
        flat=True,
    ),
    "frozen-bottom": Method(
        "frozen-bottom split",
        "three parts at edges; nothing is trained below the first cut",
        {"split.freeze": "bottom"},
    ),
    "frozen-trunk": Method(
        "frozen-trunk split",
        "three parts at edges; nothing is trained below the second cut, a text is sent once",
        {"split.freeze": "trunk", **_SERIAL},
    ),
    "hierarchical-split": Method(
        "hierarchical split", "ELSA without clustering, trust, codec and fitted splits"
    ),
    "elsa": Method(
        "ELSA",
        "three parts at edges, fitted splits, clusters by behaviour, trust, balanced wire",
        _ELSA,
    ),
    "elsa-unclustered": Method(
        "ELSA, no clustering", "devices are dealt to edges", {**_ELSA, "cluster.strategy": "none"}
    ),
    "elsa-random": Method(
        "ELSA, random edges", "devices go anywhere", {**_ELSA, "cluster.strategy": "random"}
    ),
    "elsa-latency": Method(
        "ELSA, nearest edges", "by latency alone", {**_ELSA, "cluster.strategy": "latency"}
    ),
    "elsa-untrusted": Method(
        "ELSA, no trust", "updates count by rows alone", {**_ELSA, "cluster.trust": False}
    ),
    "elsa-fixed-split": Method(
        "ELSA, fixed split", "split.bottom and split.top for all", {**_ELSA, "split.mode": "fixed"}
    ),
    "elsa-exact": Method("ELSA, exact wire", "no codec", {**_ELSA, "wire.preset": "exact"}),
    "elsa-tiny": Method("ELSA, tiny wire", "fewer bytes", {**_ELSA, "wire.preset": "tiny"}),
    "elsa-sketch": Method(
        "ELSA, count sketch", "the paper's codec", {**_ELSA, "wire.preset": "paper"}
    ),
    "elsa-ssop": Method(
        "ELSA with SS-OP", "a secret rotation of 16 directions", {**_ELSA, "ssop.rank": 16}
    ),
}
"""By the name that run.method takes."""


def method_problem(config: "Config") -> str | None:
    """Say what keeps a config from being of the method that it names, if anything does."""
    name = config.run.method
    if not name:
        return None
    if name not in METHODS:
        guess = nearest(name, METHODS)
        hint = f" (did you mean {guess}?)" if guess else ""
        known = ", ".join(METHODS)
        return f"run.method = '{name}': there is no such method{hint}; there are {known}"
    held = config.model_dump()
    for key, value in METHODS[name].all_settings.items():
        if (found := _at(held, key)) != value:
            return (
                f"run.method = '{name}' is {key} = {value!r}, and it is set to {found!r}: leave "
                "that out, or name no method"
            )
    return None


def untaken_problem(config: "Config", names: Sequence[str]) -> str | None:
    """Say what a config sets that none of these methods takes, if there is such a setting.

    It would be left out in silence, as a method's settings win over those of a config.
    """
    held, default = config.model_dump(), type(config)().model_dump()
    for key in _PLAIN:
        value = _at(held, key)
        if value != _at(default, key) and value not in [
            METHODS[name].all_settings[key] for name in names
        ]:
            taken = [name for name, it in METHODS.items() if it.all_settings[key] == value]
            other = f", or compare {', '.join(taken)} too" if taken else ""
            return (
                f"{key} = {value!r}: the methods say what it is, and none of {', '.join(names)} "
                f"takes this; leave it out{other}"
            )
    return None


def _at(table: Mapping[str, Any], key: str) -> Any:
    found: Any = table
    for part in key.split("."):
        found = found[part]
    return found


def _copied(table: Mapping[str, Any]) -> Table:
    return {k: _copied(it) if isinstance(it, Mapping) else it for k, it in table.items()}

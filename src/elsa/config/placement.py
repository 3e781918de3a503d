"""Which parts of the model lie where, and what does not go with that."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elsa.config.schema import Config


def placement_problem(config: "Config") -> str | None:
    """Say why the model cannot be laid out as the config says, if it cannot."""
    layout, federation = config.split.layout, config.federation
    if federation.pooled:
        for key, value, must in (
            ("split.layout", layout, "whole"),
            ("federation.edges", federation.edges, 1),
            ("attack.kind", config.attack.kind, "none"),
            ("adapter.ranks", config.adapter.ranks, ()),
            ("[[task]]", config.task, ()),
        ):
            if value != must:
                return f"federation.pooled = true trains in one place: {_must(key, value, must)}"
    if layout == "three-part":
        return None
    for key, value, must in _alone(config):
        if value != must:
            return f"split.layout = '{layout}' is only compared with: {_must(key, value, must)}"
    if config.cluster.strategy in ("behaviour", "mixed"):
        return (
            f"split.layout = '{layout}' is only compared with: cluster.strategy = "
            f"'{config.cluster.strategy}' cannot go with it; allowed: 'none', 'random', 'latency'"
        )
    return None


def _alone(config: "Config") -> list[tuple[str, Any, Any]]:
    """Keys, their values, and those that they must have in other layouts than three parts."""
    rules: list[tuple[str, Any, Any]] = [
        ("split.mode", config.split.mode, "fixed"),
        ("cluster.trust", config.cluster.trust, False),
        ("ssop.rank", config.ssop.rank, 0),
        ("noise.ratio", config.noise.ratio, 0.0),
        ("noise.gradient_ratio", config.noise.gradient_ratio, 0.0),
        ("audit.record_rounds", config.audit.record_rounds, 0),
    ]
    if config.split.layout == "whole":
        return [*rules, ("federation.trunk", config.federation.trunk, "per-device")]
    rules.append(("split.freeze", config.split.freeze, "none"))
    return [*rules, ("[[task]]", config.task, ())]


def _must(key: str, value: Any, must: Any) -> str:
    if not must and not isinstance(must, bool | int | float):
        return f"{key} cannot go with it"
    return f"{key} = {value!r} cannot go with it; allowed: {must!r}"

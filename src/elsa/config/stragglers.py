"""What edges that do not wait for all of their devices cannot be combined with."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elsa.config.schema import Config


def straggler_problem(config: "Config") -> str | None:
    """Say why late updates cannot be treated as the config says, if they cannot."""
    trunk, quorum = config.federation.trunk, config.deploy.device_quorum
    if quorum < 1 and trunk != "per-device":
        return (
            f"deploy.device_quorum = {quorum} cannot go with federation.trunk = '{trunk}', where "
            "each device waits for the others at every step; allowed: 'per-device'"
        )
    if config.aggregate.late == "drop":
        return None
    for key, value, allowed, why in _rules(config):
        if value not in allowed:
            listed = " or ".join(map(repr, allowed))
            return (
                f"aggregate.late = 'buffer' cannot go with {key} = {value!r}: {why}; "
                f"allowed: {listed}"
            )
    return None


def _rules(config: "Config") -> list[tuple[str, Any, tuple[Any, ...], str]]:
    """Keys, their values, those allowed, and why no others."""
    federation, aggregate, cluster = config.federation, config.aggregate, config.cluster
    changes = "a late update is added to the adapters of now, number by number"
    stays = "a device's update may be on its way from one round to the next"
    return [
        ("federation.trunk", federation.trunk, ("per-device",), "devices go at their own pace"),
        ("federation.participation", federation.participation, (1.0,), stays),
        ("federation.pooled", federation.pooled, (False,), "there is one trainer"),
        ("aggregate.edge_rule", aggregate.edge_rule, ("mean",), changes),
        ("aggregate.factors", aggregate.factors, ("separate",), changes),
        ("adapter.ranks", config.adapter.ranks, ((),), changes),
        ("split.layout", config.split.layout, ("three-part",), "it is only compared with"),
        ("split.mode", config.split.mode, ("fixed",), stays),
        ("cluster.strategy", cluster.strategy, ("none", "random"), stays),
        (
            "cluster.trust",
            cluster.trust,
            (False,),
            "devices are judged beside others that began with the same adapters",
        ),
    ]

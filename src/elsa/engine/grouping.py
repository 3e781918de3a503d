"""The words of `[cluster]`, to the cloud's view of its devices."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from elsa.config.schema import Config
from elsa.core.assign import Rules
from elsa.core.trust import TrustRules
from elsa.errors import ConfigError
from elsa.roles.overseer import Overseer, Policy

Watcher = TypeVar("Watcher", bound=Overseer)


def overseer_of(
    config: Config,
    devices: Sequence[str],
    edges: Sequence[str],
    latencies: Mapping[tuple[str, str], float],
    make: Callable[[Policy, Sequence[str], Sequence[str], Tensor], Watcher],
) -> Watcher:
    """What the cloud knows of devices and edges when a run begins.

    Args:
        config: of the run.
        devices: names, N.
        edges: names, K.
        latencies: seconds one way, by device and edge.
        make: the kind of view: `Overseer`, or `Musterer` for real machines.

    Raises:
        ConfigError: no device has an edge within the latency limit.
    """
    it = config.cluster
    capacity = it.capacity or -(-len(devices) // len(edges))
    limit = it.latency_limit_ms / 1e3 if it.latency_limit_ms else math.inf
    # A strategy that goes by latency alone weighs nothing against it.
    weight = 1.0 if it.strategy == "latency" else it.latency_weight
    policy = Policy(
        strategy=it.strategy,
        clusters=it.clusters,
        every=it.every,
        rules=Rules((capacity,) * len(edges), limit, weight, it.margin),
        probes=it.probe_count,
        axes=it.axes,
        trust=TrustRules(it.memory, it.least_trust) if it.trust else None,
        seed=config.run.seed,
        fingerprint=it.fingerprint,
    )
    seconds = [[latencies[device, edge] for edge in edges] for device in devices]
    nearest = min(map(min, seconds))
    if it.strategy not in ("none", "random") and limit < nearest < math.inf:
        raise ConfigError(
            f"no device has an edge within cluster.latency_limit_ms = {it.latency_limit_ms:g} ms: "
            f"the nearest is {1e3 * nearest:.4g} ms away; raise it, or set it to 0 for no limit"
        )
    return make(policy, devices, edges, torch.tensor(seconds, dtype=torch.float64))

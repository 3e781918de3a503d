"""What becomes of updates, and which ways go together, and with the federation."""

from math import ceil
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from elsa.config.section import Positive, Section

if TYPE_CHECKING:
    from elsa.config.schema import Config

AggregateRule = Literal["mean", "median", "trimmed-mean", "krum", "multi-krum"]


class FedAdam(Section):
    """Constants of the cloud's optimizer."""

    learning_rate: Positive = 3e-2
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    tau: Positive = 1e-3
    """Adaptivity: added to the root of the second moment."""


class Aggregate(Section):
    """What becomes of the updates."""

    edge_rule: AggregateRule = "mean"
    """Rule over the devices of an edge."""
    cloud_rule: AggregateRule = "mean"
    """Rule over the edges."""
    trim: Annotated[float, Field(ge=0.01, lt=0.5)] = 0.2
    """Part of the updates that a trimmed mean drops at each end."""
    edge_byzantine: Annotated[int, Field(ge=0)] = 1
    """f of Krum at an edge: devices that may send anything."""
    cloud_byzantine: Annotated[int, Field(ge=0)] = 1
    """f of Krum at the cloud: edges that may send anything."""
    factors: Literal["separate", "product"] = "separate"
    """What is averaged of LoRA: A and B each, or their product."""
    late: Literal["drop", "buffer"] = "drop"
    """Updates after deploy.device_quorum of an edge's devices: left out, or in a later average."""
    staleness: Annotated[float, Field(ge=0)] = 0.5
    """a of the weight (1 + s)^-a of an update that comes s averages late."""
    mu: Annotated[float, Field(ge=0)] = 0.0
    """FedProx: pull towards the adapters that an edge round began with."""
    server: Literal["none", "adam"] = "none"
    """The cloud's optimizer."""
    adam: FedAdam = FedAdam()


def aggregation_problem(config: "Config") -> str | None:
    """Say why updates cannot be aggregated as the config says, if they cannot."""
    federation, aggregate, adapter = config.federation, config.aggregate, config.adapter
    devices = max(1, round(federation.participation * federation.devices))
    for key, rule, count, what in (
        (
            "edge",
            aggregate.edge_rule,
            devices // federation.edges,
            "devices to an edge in each round",
        ),
        ("cloud", aggregate.cloud_rule, federation.edges, "edges"),
    ):
        wanted, why = _needed(aggregate, key, rule)
        if count < wanted:
            return (
                f"aggregate.{key}_rule = '{rule}' needs {wanted} updates{why}; "
                f"[federation] gives it {count} {what}"
            )
    rules = {aggregate.edge_rule, aggregate.cloud_rule}
    if aggregate.factors == "product" and rules != {"mean"}:
        return (
            "aggregate.factors = 'product' is a mean of products; with it aggregate.edge_rule "
            "and aggregate.cloud_rule must be 'mean'"
        )
    if aggregate.server != "none" and (aggregate.factors == "product" or adapter.mixed):
        other = "aggregate.factors = 'product'" if not adapter.mixed else "adapter.ranks"
        return (
            f"aggregate.server = '{aggregate.server}' cannot go with {other}, which turns the "
            "factors each round: the server's moments belong to numbers that stay where they are"
        )
    if adapter.ranks and max(adapter.ranks) != adapter.rank:
        return (
            f"adapter.ranks = {list(adapter.ranks)}: the largest must be adapter.rank = "
            f"{adapter.rank}, that of the exported adapter"
        )
    if len(adapter.ranks) > federation.devices:
        return (
            f"adapter.ranks has {len(adapter.ranks)} ranks for federation.devices = "
            f"{federation.devices}; each stands for an equal share of the devices"
        )
    return None


def _needed(aggregate: "Aggregate", tier: str, rule: "AggregateRule") -> tuple[int, str]:
    """Updates that a rule needs at a tier to mean anything, and why."""
    if rule == "median":
        return 3, ", as the median of two is their mean"
    if rule == "trimmed-mean":
        enough = ceil(1 / aggregate.trim - 1e-9)
        return enough, f" to drop any with aggregate.trim = {aggregate.trim}"
    if rule in ("krum", "multi-krum"):
        key = f"{tier}_byzantine"
        bad: int = getattr(aggregate, key)
        return 2 * bad + 3, f", 2 f + 3 with f = aggregate.{key} = {bad}"
    return 1, ""

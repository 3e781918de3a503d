"""The words of [aggregate] and the ranks of [adapter], to objects."""

from collections.abc import Callable
from functools import partial

from elsa.config.aggregation import Aggregate, AggregateRule
from elsa.config.schema import Adapter, Config
from elsa.core.aggregate import Mean, NewMean, WeightedMean
from elsa.core.product import Ordered, ProductMean
from elsa.core.robust import Gathered, Rule, coordinate_median, krum, multi_krum, trimmed_mean
from elsa.core.serveropt import FedAdam
from elsa.roles.flights import Flights


def edge_mean(config: Aggregate, adapter: Adapter) -> NewMean:
    """Makes the mean over the devices of an edge.

    Products come out ordered where ranks are mixed, as each edge round cuts them anew.
    """
    inner = _mean(config, config.edge_rule, config.edge_byzantine)
    return _ordered(inner) if adapter.mixed and config.factors == "product" else inner


def cloud_mean(config: Aggregate, adapter: Adapter) -> NewMean:
    """Makes the mean over edges, its factors ordered where ranks are mixed.

    With factors averaged apart this is the only place that may turn them: all devices of a round
    must train in the same directions.
    """
    inner = _mean(config, config.cloud_rule, config.cloud_byzantine)
    return _ordered(inner) if adapter.mixed else inner


def server_optimizer(config: Aggregate) -> FedAdam | None:
    """The cloud's optimizer, if it has one."""
    if config.server == "none":
        return None
    adam = config.adam
    return FedAdam(adam.learning_rate, adam.beta1, adam.beta2, adam.tau)


def flights_of(config: Config) -> Flights | None:
    """Keeps an edge's updates until they come by the virtual clock; None where it awaits all."""
    aggregate, waits = config.aggregate, config.deploy.device_quorum == 1
    return None if waits and aggregate.late == "drop" else Flights(aggregate.staleness)


def device_rank(adapter: Adapter, number: int, devices: int) -> int:
    """Rank of a device's adapters, 0 for the common one: `ranks` in equal shares, in order."""
    return adapter.ranks[number * len(adapter.ranks) // devices] if adapter.mixed else 0


def _mean(config: Aggregate, rule: AggregateRule, byzantine: int) -> NewMean:
    if rule == "mean":
        return ProductMean if config.factors == "product" else WeightedMean
    rules: dict[AggregateRule, Rule] = {
        "median": coordinate_median,
        "trimmed-mean": partial(trimmed_mean, trim=config.trim),
        "krum": partial(krum, byzantine=byzantine),
        "multi-krum": partial(multi_krum, byzantine=byzantine),
    }
    return partial(Gathered, rules[rule])


def _ordered(inner: NewMean) -> Callable[[], Mean]:
    return lambda: Ordered(inner())

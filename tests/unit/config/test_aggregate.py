"""Ways to aggregate that cannot work are refused before a run, with what would."""

import pytest

from elsa.config.load import load_config
from elsa.errors import ConfigError

IMPOSSIBLE = {
    "krum at an edge": (
        ["aggregate.edge_rule=krum", "aggregate.edge_byzantine=2"],
        "aggregate.edge_rule = 'krum' needs 7 updates, 2 f + 3 with f = aggregate.edge_byzantine "
        "= 2; [federation] gives it 5 devices to an edge in each round",
    ),
    "krum of few participants": (
        ["aggregate.edge_rule=multi-krum", "federation.participation=0.8"],
        "aggregate.edge_rule = 'multi-krum' needs 5 updates, 2 f + 3 with f = "
        "aggregate.edge_byzantine = 1; [federation] gives it 4 devices",
    ),
    "krum at the cloud": (
        ["aggregate.cloud_rule=krum"],
        "aggregate.cloud_rule = 'krum' needs 5 updates, 2 f + 3 with f = "
        "aggregate.cloud_byzantine = 1; [federation] gives it 2 edges",
    ),
    "median of two": (
        ["aggregate.cloud_rule=median"],
        "'median' needs 3 updates, as the median of two is their mean; [federation] gives it 2",
    ),
    "nothing trimmed": (
        ["aggregate.edge_rule=trimmed-mean", "aggregate.trim=0.1"],
        "'trimmed-mean' needs 10 updates to drop any with aggregate.trim = 0.1; [federation] "
        "gives it 5 devices",
    ),
    "products of robust rules": (
        ["aggregate.edge_rule=median", "aggregate.factors=product"],
        "aggregate.edge_rule and aggregate.cloud_rule must be 'mean'",
    ),
    "moments of turned factors": (
        ["aggregate.server=adam", "aggregate.factors=product"],
        "aggregate.server = 'adam' cannot go with aggregate.factors = 'product', which turns",
    ),
    "moments of ordered factors": (
        ["aggregate.server=adam", "adapter.ranks=[8, 4]"],
        "aggregate.server = 'adam' cannot go with adapter.ranks, which turns",
    ),
    "largest rank": (
        ["adapter.ranks=[4, 2]"],
        "adapter.ranks = [4, 2]: the largest must be adapter.rank = 8, that of the exported",
    ),
    "more ranks than devices": (
        ["adapter.ranks=[8, 4, 2]", "federation.devices=2", "federation.edges=1"],
        "adapter.ranks has 3 ranks for federation.devices = 2",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_cannot_work_is_refused_with_why(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["aggregate.edge_rule=krum"],
        ["aggregate.edge_rule=trimmed-mean"],
        ["aggregate.edge_rule=median", "aggregate.server=adam", "aggregate.mu=0.1"],
        ["aggregate.cloud_rule=multi-krum", "federation.edges=5"],
        ["aggregate.factors=product", "adapter.ranks=[2, 8, 4]"],
        ["aggregate.server=adam", "adapter.ranks=[8, 8]"],
        ["aggregate.edge_rule=krum", "adapter.ranks=[8, 4]"],
    ],
    ids=str,
)
def test_what_just_works_is_taken(overrides: list[str]) -> None:
    load_config(None, overrides)

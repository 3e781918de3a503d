"""What edges that do not wait for all of their devices are not combined with, and why."""

import pytest

from elsa.config.load import load_config
from elsa.errors import ConfigError

BUFFER = "aggregate.late=buffer"
REFUSED = {
    "federation.trunk=shared": "devices go at their own pace; allowed: 'per-device'",
    "federation.participation=0.5": "on its way from one round to the next; allowed: 1.0",
    "aggregate.edge_rule=median": "added to the adapters of now, number by number; allowed: 'mean'",
    "aggregate.factors=product": "allowed: 'separate'",
    "adapter.ranks=[8, 4]": "allowed: ()",
    "split.layout=whole": "it is only compared with; allowed: 'three-part'",
    "split.mode=fitted": "allowed: 'fixed'",
    "cluster.strategy=latency": "allowed: 'none' or 'random'",
    "cluster.trust=true": "judged beside others that began with the same adapters; allowed: False",
}


@pytest.mark.parametrize("other", REFUSED)
def test_a_buffer_is_refused_beside_what_needs_all_at_once(other: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [BUFFER, other])
    key = other.partition("=")[0]
    assert f"aggregate.late = 'buffer' cannot go with {key} = " in str(caught.value)
    assert REFUSED[other] in str(caught.value)
    load_config(None, [other])


def test_a_trunk_in_step_waits_for_all() -> None:
    with pytest.raises(ConfigError, match=r"device_quorum = 0\.5 cannot go with federation\.trunk"):
        load_config(None, ["deploy.device_quorum=0.5", "federation.trunk=sequential"])


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("deploy.device_quorum=0.1", "aggregate.staleness=0", "cluster.strategy=random"),
        ("aggregate.server=adam", "aggregate.mu=0.1", "wire.preset=tiny", "ssop.rank=8"),
        ("attack.kind=sign-flip", "attack.fraction=0.1", "federation.devices=20"),
    ],
    ids=str,
)
def test_a_buffer_goes_with_the_rest(overrides: tuple[str, ...]) -> None:
    assert load_config(None, [BUFFER, *overrides]).aggregate.late == "buffer"

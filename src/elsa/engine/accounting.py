"""What the noise of a run is worth so far, from how often something of each unit left a device.

Counted at most: a device that was asked to take part counts as having sent everything, once for
each time that its rows came round. Tokens and labels are those of training rows; held-out rows are
sent once an evaluation. Where the trunk is frozen a device keeps what it has room for, and sends
less.
"""

from collections.abc import Mapping, Sequence
from math import ceil

from elsa.config.schema import Config
from elsa.core.noise import epsilon_of
from elsa.record.events import NoiseSpent


def spent(
    config: Config, round_: int, taken: Mapping[str, int], rows: Mapping[str, int]
) -> Sequence[NoiseSpent]:
    """An account for each kind of noise that is on.

    Args:
        config: of the run.
        round_: the last one that counts.
        taken: global rounds that each device took part in.
        rows: training rows of each device that has told.
    """
    noise, federation = config.noise, config.federation
    steps = federation.edge_rounds * federation.steps
    updates = max(taken.values(), default=0) * federation.edge_rounds
    passes = max(
        (
            ceil(taken[name] * steps / ceil(held / config.train.batch_size))
            for name, held in rows.items()
            if taken.get(name) and held
        ),
        default=0,
    )
    return [
        NoiseSpent(round_, unit, releases, epsilon_of(ratio, noise.delta, releases), noise.delta)
        for unit, ratio, releases in (
            ("token", noise.ratio, passes),
            ("label", noise.gradient_ratio, passes),
            ("device", noise.update_ratio, updates),
        )
        if ratio and releases
    ]

"""What several micro-batches in flight go with."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elsa.config.schema import Config


def overlap_problem(config: "Config") -> str | None:
    """Say why micro-batches cannot be in flight together, if they cannot."""
    count, rows = config.train.in_flight, config.train.batch_size
    if count == 1:
        return None
    what = f"train.in_flight = {count}"
    if count > rows:
        return f"{what} cuts a batch of train.batch_size = {rows} rows; allowed: 1 to {rows}"
    if config.split.layout != "three-part":
        return (
            f"{what} overlaps the hops of three parts, and split.layout = '{config.split.layout}' "
            "has others; allowed: 1, or split.layout = 'three-part'"
        )
    if config.split.freeze == "trunk":
        return (
            f"{what} overlaps hops of every step, and with split.freeze = 'trunk' a text is sent "
            "once; allowed: 1"
        )
    if config.federation.trunk != "per-device":
        return (
            f"{what} cannot go with federation.trunk = '{config.federation.trunk}', where each "
            "device waits for the others at every step; allowed: 1, or 'per-device'"
        )
    return None

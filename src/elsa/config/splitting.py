"""What goes with a frozen trunk."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elsa.config.schema import Config


def split_problem(config: "Config") -> str | None:
    """Say why the model cannot be cut as the config says, if it cannot."""
    if config.split.freeze != "trunk":
        return None
    if config.split.top < 1:
        return (
            "split.freeze = 'trunk' leaves adapters above the second cut only, and split.top = 0 "
            "has no blocks there; set split.top to 1 or more"
        )
    if config.split.mode == "fitted":
        return (
            "split.freeze = 'trunk' goes with split.mode = 'fixed': devices share the adapters of "
            "their last blocks, so all need equally many"
        )
    if config.federation.trunk != "per-device":
        return (
            f"federation.trunk = '{config.federation.trunk}' shares the trunk's adapters, and "
            "split.freeze = 'trunk' "
            "leaves it none; leave federation.trunk at 'per-device'"
        )
    return None

"""What the cloud knows, as tensors of a checkpoint."""

from collections.abc import Mapping

from torch import Tensor

from elsa.roles.cloud import Cloud


def known_to(cloud: Cloud) -> dict[str, Tensor]:
    """The global adapters under "global/", and what its optimizer remembers under "server/"."""
    held = {f"global/{name}": value for name, value in cloud.adapters.items()}
    return held | {f"server/{name}": value for name, value in cloud.moments().items()}


def remind(cloud: Cloud, round_: int, tensors: Mapping[str, Tensor]) -> None:
    """Have it go on before this round from what `known_to` gave; others' tensors are left alone."""
    parts: dict[str, dict[str, Tensor]] = {"global": {}, "server": {}}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        if kind in parts:
            parts[kind][name] = value
    ordered = {name: parts["global"][name] for name in cloud.adapters}
    cloud.restore(ordered, round_, parts["server"])

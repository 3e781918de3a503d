"""What crosses between the driver and the processes of edges, besides frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
from torch import Tensor

from elsa.core.split import Split
from elsa.record.shelf import Layout

News = tuple[str, tuple[Any, ...]]
"""Whom of a `globalround.Watch` to tell, and what."""


@dataclass(frozen=True)
class Said:
    """What an edge's process has done for a request of the cloud.

    Attributes:
        frame: the answer.
        seconds: simulated, that it took below the link to the cloud.
        traffic: of the devices' links, as `wire.meter.Meter.state`.
        news: what was not told before.
    """

    frame: bytes
    seconds: float
    traffic: Sequence[Mapping[str, Any]]
    news: Sequence[News]


@dataclass(frozen=True)
class Luggage:
    """What devices, and perhaps an edge, take with them into another process.

    Attributes:
        splits: by device.
        positions: where the streams of batches of the same devices stand.
        held: by name, as `Federation.held_by` gives them; see `packed`.
        moments: by owner, as they lie on a shelf.
        edge: whether what the edge holds is part of it.
    """

    splits: Mapping[str, Split] = field(default_factory=dict)
    positions: Mapping[str, int] = field(default_factory=dict)
    held: bytes = b""
    moments: Mapping[str, tuple[Layout, bytes]] = field(default_factory=dict)
    edge: bool = False


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors by name, of any shape and dtype, as safetensors; empty where there are none."""
    if not tensors:
        return b""
    # Each in memory of its own, as the format wants.
    alone = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    data: bytes = safetensors.torch.save(alone)
    return data


def unpacked(data: bytes) -> dict[str, Tensor]:
    """What was `packed`."""
    return safetensors.torch.load(data) if data else {}

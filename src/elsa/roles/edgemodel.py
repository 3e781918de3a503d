"""What an edge server knows of the model, and which parts of it devices may ask for."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from elsa.core.split import Layout, Split
from elsa.errors import ProtocolError
from elsa.model.segments import Top, Trunk
from elsa.roles.parcel import Sent
from elsa.roles.probing import Probing
from elsa.wire.messages import Ready


@dataclass(frozen=True)
class EdgeModel:
    """What an edge knows of the model.

    Attributes:
        blocks: M.
        hidden: D.
        max_tokens: longest sequence it accepts.
        trunk: the segment for a split; devices with equal splits share it.
        seed: from which each session's seed is drawn.
        dtype: in which it computes, and its devices too.
        sent: how adapters travel.
        probing: opens the public probes, for edge rounds that are watched.
        layout: what devices may ask for; in "two-part" they disclose their labels.
        end: the segment of a two-part split: trunk and head.
        in_flight: micro-batches of a step that a device may have under way here at once; each holds
            its activations, so all together about those of one batch.
    """

    blocks: int
    hidden: int
    max_tokens: int
    trunk: Callable[[Split], Trunk]
    seed: int
    dtype: torch.dtype = torch.float32
    sent: Sent = "float32"
    probing: Callable[[], Probing] | None = None
    layout: Layout = "three-part"
    end: Callable[[Split], Top] | None = None
    in_flight: int = 1

    def part(self, peer: str, request: Ready) -> tuple[Split, Trunk | Top | None]:
        """The split that a device asks for, and the edge's segment for it, if it has one.

        Raises:
            ProtocolError: it is of another layout than the edge's.
            SplitError: there is no such split.
        """
        split = Split.of(self.blocks, request.bottom, request.top, self.layout)
        if (request.top, request.labelled) != (split.top, split.head_at_edge):
            raise ProtocolError(f"device {peer} asks for another split than {self.layout}")
        if self.end is not None and split.head_at_edge:
            return split, self.end(split)
        return split, self.trunk(split) if split.trunk else None

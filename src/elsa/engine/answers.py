"""What a recorded run was really about: the key by which attacks on its transcript are scored.

No attack sees any of this. A device's batches follow from its rows and its seed; which of them an
edge round was about is found by the lengths of their texts, which are in the transcript.
"""

from collections.abc import Sequence
from itertools import islice

from elsa.data.batches import Batch
from elsa.engine.federation import Federation
from elsa.roles.device import Device


def batches_of(
    federation: Federation,
    device: str,
    round_: int,
    edge_round: int,
    lengths: Sequence[Sequence[int]],
) -> list[Batch] | None:
    """The batches of an edge round of an honest device; None if none fits.

    Args:
        federation: built as that of the run was, never trained.
        device: its name.
        round_, edge_round: which edge round.
        lengths: tokens of each text, for each local step that was recorded.
    """
    held = honest(federation).get(device)
    if held is None:
        return None
    shape = federation.config.federation
    for earlier in range(round_, -1, -1):  # a device that did not always take part is behind
        stream = held.stream()
        stream.position = (earlier * shape.edge_rounds + edge_round) * shape.local_steps
        batches = list(islice(stream, len(lengths)))
        if [list(batch.lengths) for batch in batches] == [list(each) for each in lengths]:
            return batches
    return None


def honest(federation: Federation) -> dict[str, Device]:
    """The devices that are not poisoned, by name; what a poisoned one sends is its own affair."""
    return {name: it for name, it in federation.devices.items() if isinstance(it, Device)}

"""From what each device counted to the numbers of a round."""

import math
from collections.abc import Mapping

from elsa.core.score import Tally
from elsa.record.events import Evaluated


def evaluated(round_: int, tallies: Mapping[str, Tally], tester: str, *, causal: bool) -> Evaluated:
    """The scores of the global adapters.

    Args:
        round_: the global round that made them.
        tallies: by device name; devices without held-out rows have no items and do not count.
        tester: name of the device with the common test rows, which `accuracy` and `loss` are of.
        causal: whether the task is a language model: then accuracies are of tokens, and there is
            a perplexity.
    """
    common = tallies.get(tester, Tally())
    own = [tally.accuracy for name, tally in tallies.items() if name != tester and tally.items]
    return Evaluated(
        round=round_,
        loss=common.mean_loss if common.items else None,
        accuracy=common.accuracy if common.items else None,
        accuracy_mean_device=sum(own) / len(own) if own else None,
        accuracy_worst_device=min(own) if own else None,
        perplexity=math.exp(min(common.mean_loss, 700.0)) if causal and common.items else None,
    )

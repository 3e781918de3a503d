"""From what each device counted to the numbers of a round."""

import math
from collections.abc import Collection, Mapping

from elsa.core.score import Tally
from elsa.record.events import DeviceEvaluated, Evaluated, TaskEvaluated


def evaluated(
    round_: int,
    tallies: Mapping[str, Tally],
    testers: Mapping[str, str],
    *,
    causal: bool,
    answers: bool = False,
) -> tuple[list[TaskEvaluated], Evaluated]:
    """The scores of the global adapters: of each task, if there are several, and of all.

    Args:
        round_: the global round that made them.
        tallies: by device name; devices without held-out rows have no items and do not count.
        testers: by task, of the only one under "", name of the device with its test rows, which
            accuracies and losses are of; those of all are the mean over tasks.
        causal: whether the task is a language model: then accuracies are of tokens, and there is
            a perplexity.
        answers: whether its texts are prompts with answers: then there is a share of those that
            are right from the first token to the last.
    """
    measured = {name: tally for name, tally in tallies.items() if tally.items}
    common = {task: measured[name] for task, name in testers.items() if name in measured}
    losses = [tally.mean_loss for tally in common.values()]
    shares = [tally.accuracy for tally in common.values()]
    right = [tally.whole_share for tally in common.values()]
    own = [it.accuracy for name, it in measured.items() if name not in testers.values()]
    loss = sum(losses) / len(losses) if losses else None
    of_all = Evaluated(
        round=round_,
        loss=loss,
        accuracy=sum(shares) / len(shares) if shares else None,
        accuracy_mean_device=sum(own) / len(own) if own else None,
        accuracy_worst_device=min(own) if own else None,
        perplexity=math.exp(min(loss, 700.0)) if causal and loss is not None else None,
        answers=sum(right) / len(right) if answers and right else None,
    )
    of_each = [
        TaskEvaluated(round_, task, tally.mean_loss, tally.accuracy)
        for task, tally in common.items()
        if task
    ]
    return of_each, of_all


def of_devices(
    round_: int, tallies: Mapping[str, Tally], testers: Collection[str]
) -> list[DeviceEvaluated]:
    """What each device with held-out rows counted; `testers` have the common test rows instead."""
    return [
        DeviceEvaluated(round_, name, tally.items, tally.correct)
        for name, tally in tallies.items()
        if tally.items and name not in testers
    ]

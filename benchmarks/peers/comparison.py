"""What runs come to: a table of costs with ratios to Flower, and how near they learn alike."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from arms import ARMS, PRECISIONS

Run = dict[str, Any]
"""A finished run, as the JSON file holds it."""


def rows_of(runs: Sequence[Run]) -> list[Run]:
    """Medians over turns by arm and precision, and of Flower's cost over each within a turn."""
    rows = []
    for precision in PRECISIONS:
        flower = _turns(runs, "flower", precision)
        for name in ARMS:
            mine = _turns(runs, name, precision)
            if not mine:
                continue
            all_, first = list(mine.values()), mine[min(mine)]
            pairs = [(flower[turn], it) for turn, it in mine.items() if turn in flower]
            rows.append(
                {
                    "arm": ARMS[name].title,
                    "precision": precision,
                    "turns": len(mine),
                    "seconds": median(it["seconds"] for it in all_),
                    "cpu_seconds": median(it["cpu_seconds"] for it in all_),
                    "peak_mb": median(it["peak_bytes"] for it in all_) / 1e6,
                    "processes": max(it["processes"] for it in all_),
                    "mb_up": first["bytes_up"] / 1e6,
                    "mb_down": first["bytes_down"] / 1e6,
                    "accuracy": " ".join(f"{it:.3f}" for it in first["accuracy"]),
                    "times_faster_than_flower": _ratio(pairs, "seconds"),
                    "part_of_flowers_memory": _ratio([(b, a) for a, b in pairs], "peak_bytes"),
                }
            )
    return rows


def parity_of(runs: Sequence[Run]) -> list[Run]:
    """What the peers' first turns differ by from elsa's FedAvg, round by round."""
    found = []
    for precision in PRECISIONS:
        own = _turns(runs, "fedavg", precision)
        for name in ARMS:
            theirs = _turns(runs, name, precision)
            if name in ("fedavg", "elsa") or not own or not theirs:
                continue
            one, other = theirs[min(theirs)], own[min(own)]
            found.append(
                {"arm": name, "precision": precision}
                | {
                    what: [a - b for a, b in zip(one[what], other[what], strict=True)]
                    for what in ("accuracy", "loss")
                }
            )
    return found


def _turns(runs: Sequence[Run], arm: str, precision: str) -> dict[int, Run]:
    return {it["turn"]: it for it in runs if (it["arm"], it["precision"]) == (arm, precision)}


def _ratio(pairs: Sequence[tuple[Run, Run]], what: str) -> float | None:
    return median(one[what] / other[what] for one, other in pairs) if pairs else None

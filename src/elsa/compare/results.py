"""The results of a comparison: a row a method, with what its seeds differ by from the reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from elsa.compare.numbers import Difference, Spread, difference, spread
from elsa.compare.outcome import HOPS, Cost, Outcome, Point
from elsa.config.methods import METHODS

SHARE = 0.95
"""Of the best mean accuracy: the target, unless one is given."""


@dataclass(frozen=True)
class Row:
    """A method over its seeds.

    Attributes:
        method: its name.
        accuracy, worst_device: over seeds.
        differences: of accuracy and of worst-device accuracy to the reference, seed by seed.
        rounds, seconds, megabytes: to the target, over the seeds that reached it.
        reached: how many did.
        bytes: of a run, by hop, over seeds; None for hops that the method has not.
        samples, simulated_seconds, wall_seconds: of a run.
        rate: learning rate.
        cost: what it asks of devices and servers.
        remark: what a reader must know.
    """

    method: str
    accuracy: Spread
    worst_device: Spread | None
    differences: Mapping[str, Difference | None]
    rounds: Spread | None
    seconds: Spread | None
    megabytes: Spread | None
    reached: int
    bytes: Mapping[str, Spread | None]
    samples: Spread | None
    simulated_seconds: Spread | None
    wall_seconds: Spread | None
    rate: float
    cost: Cost | None
    remark: str


@dataclass(frozen=True)
class Results:
    """A whole comparison.

    Attributes:
        rows: a method each, in the order asked for.
        outcomes: every run.
        against: the method that differences are to.
        target: the accuracy that is waited for.
    """

    rows: Sequence[Row]
    outcomes: Sequence[Outcome]
    against: str
    target: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def make_results(
    methods: Sequence[str],
    outcomes: Sequence[Outcome],
    costs: Mapping[str, Cost | None],
    against: str,
    target: float | None = None,
    remarks: Mapping[str, str] | None = None,
) -> Results:
    """Put the outcomes together; methods without any are left out."""
    by_method = {
        name: [it for it in outcomes if it.method == name]
        for name in methods
        if any(it.method == name for it in outcomes)
    }
    means = [spread([it.accuracy for it in own]) for own in by_method.values()]
    aim = target or round(SHARE * max((it.mean for it in means if it), default=0.0), 2)
    reference = by_method.get(against, [])
    rows = [
        _row(name, own, reference, aim, costs.get(name), (remarks or {}).get(name, ""))
        for name, own in by_method.items()
    ]
    return Results(rows, [it for own in by_method.values() for it in own], against, aim)


def _row(
    method: str,
    own: Sequence[Outcome],
    reference: Sequence[Outcome],
    target: float,
    cost: Cost | None,
    remark: str,
) -> Row:
    firsts = [point for it in own if (point := it.first(target)) is not None]

    def gap(score: Callable[[Outcome], float | None]) -> Difference | None:
        if not reference or reference[0].method == method:
            return None
        return difference(
            {it.seed: score(it) for it in own}, {it.seed: score(it) for it in reference}
        )

    def to_target(number: Callable[[Point], float]) -> Spread | None:
        return spread([number(point) for point in firsts])

    accuracy = spread([it.accuracy for it in own])
    assert accuracy is not None
    return Row(
        method=method,
        accuracy=accuracy,
        worst_device=spread([it.worst_device for it in own]),
        differences={
            "accuracy": gap(lambda it: it.accuracy),
            "worst_device": gap(lambda it: it.worst_device),
        },
        rounds=to_target(lambda point: point.rounds),
        seconds=to_target(lambda point: point.seconds),
        megabytes=to_target(lambda point: point.bytes / 1e6),
        reached=len(firsts),
        bytes={hop: spread([it.bytes[hop] for it in own]) for hop in HOPS},
        samples=spread([it.samples for it in own]),
        simulated_seconds=spread([it.simulated_seconds for it in own]),
        wall_seconds=spread([it.wall_seconds for it in own]),
        rate=own[0].rate,
        cost=cost,
        remark=remark,
    )


def title_of(method: str) -> str:
    """The method's name for people."""
    return METHODS[method].title

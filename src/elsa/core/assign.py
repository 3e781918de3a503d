"""Which edge server a device goes to: the cheapest assignment under capacities, exactly.

    cost(n, k) = lambda latency(n, k) / latency_max + (1 - lambda) distance(n, cluster of k)

(ELSA, arXiv 2601.13824.) A device's present edge costs `margin` less, so that a move must gain more
than that; then the assignment problem is solved to the optimum (scipy). No device is given an edge
beyond the latency limit or its capacity: who cannot be placed is left out, with the reason.

Shapes: N devices, K edges, C clusters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from elsa.core.cluster import Clusters, affinity

NOWHERE = -1
"""Instead of an edge's number."""
_FAR = 10.0
"""Cost of an edge that cannot be reached, where the farthest of the others costs 1."""


@dataclass(frozen=True)
class Rules:
    """What an assignment must heed.

    Attributes:
        capacities: devices that each edge takes at most, K numbers.
        latency_limit: seconds one way that no device may be beyond; infinity for none.
        latency_weight: lambda, 0 to 1.
        margin: how much a move must gain, in units of the cost.
    """

    capacities: Sequence[int]
    latency_limit: float
    latency_weight: float
    margin: float


@dataclass(frozen=True)
class Assignment:
    """Who goes where.

    Attributes:
        edges: of each device, its edge's number, or `NOWHERE`.
        costs: of each device at its edge, without the margin; 0 where it has none.
        left_out: why a device has no edge, by its number.
    """

    edges: tuple[int, ...]
    costs: tuple[float, ...]
    left_out: dict[int, str]


def assign(
    latency: Tensor, distance: Tensor, rules: Rules, current: Sequence[int] | None = None
) -> Assignment:
    """Assign as many devices as can be, at the least cost.

    Args:
        latency: [N, K], seconds one way; infinity where an edge cannot be reached.
        distance: [N, K], of each device to the cluster of each edge, 0 to 1.
        rules: see there.
        current: of each device its present edge, or `NOWHERE`; None where nobody has one.
    """
    seconds = latency.double().numpy()
    cost = _cost(seconds, rules.latency_weight)
    cost = cost + (1 - rules.latency_weight) * distance.double().numpy()
    wanted = cost.copy()
    for device, edge in enumerate(current or ()):
        if edge != NOWHERE:
            wanted[device, edge] -= rules.margin
    allowed = _within(seconds, rules)
    edges = _solve(wanted, allowed, rules.capacities)
    left_out = {
        device: _reason(seconds[device], allowed[device], rules)
        for device, edge in enumerate(edges)
        if edge == NOWHERE
    }
    costs = [0.0 if edge == NOWHERE else float(cost[n, edge]) for n, edge in enumerate(edges)]
    return Assignment(tuple(edges), tuple(costs), left_out)


def match(
    clusters: Clusters, latency: Tensor, rules: Rules, current: Sequence[int] | None = None
) -> Tensor:
    """Which clusters each edge is for, bool [K, C], at the least cost; every edge has one.

    A cluster costs at an edge what its members' latencies and moves would. With fewer clusters than
    edges, large ones get several edges; with more, edges get several clusters.
    """
    edges = latency.shape[1]
    cost = _cost(latency.double().numpy(), rules.latency_weight) + rules.margin
    for device, edge in enumerate(current or ()):
        if edge != NOWHERE:
            cost[device, edge] -= rules.margin
    members = torch.nn.functional.one_hot(clusters.labels, clusters.count).double().numpy()
    of_cluster = members.T @ cost  # [C, K]
    home = np.zeros((edges, clusters.count), bool)
    if clusters.count <= edges:
        times = _shares(members.sum(0), edges)
        rows = np.repeat(np.arange(clusters.count), times)
        each = of_cluster[rows] / times[rows][:, None]
        row, place = _cheapest(each)
        home[place, rows[row]] = True
    else:
        columns = np.tile(np.arange(edges), -(-clusters.count // edges))
        first = np.where(np.arange(len(columns)) < edges, 0.0, _above(of_cluster))
        row, place = _cheapest(of_cluster[:, columns] + first)
        home[columns[place], row] = True
    return torch.from_numpy(home)


def distances(apart: Tensor, clusters: Clusters, home: Tensor) -> Tensor:
    """How far each device is from the cluster of each edge, [N, K] from 0 to 1.

    1 minus the mean affinity to the cluster's other members; of an edge's clusters, the nearest
    counts. A cluster that nobody else is in has distance 0 to its own, and 1 to no one's.
    """
    alike = affinity(apart)
    devices = len(alike)
    to_cluster = torch.zeros(devices, clusters.count, dtype=torch.float64)
    for number in range(clusters.count):
        inside = (clusters.labels == number).double()
        others = inside.sum() - inside
        total = alike @ inside - inside  # a device is wholly like itself, and does not count
        to_cluster[:, number] = torch.where(others > 0, 1 - total / others.clamp(min=1), 0.0)
    far = to_cluster[:, None, :].expand(devices, len(home), clusters.count)
    return far.masked_fill(~home, torch.inf).amin(2).clamp(0, 1)


def spread(
    clusters: Clusters, latency: Tensor, rules: Rules, current: Sequence[int] | None = None
) -> Assignment:
    """Deal every cluster over all edges in proportion to their capacities: each edge is mixed.

    Cluster by cluster, the largest first, each solved as `assign` with the edge's share of that
    cluster for capacity; who finds no place so takes any that is left.
    """
    devices = len(clusters.labels)
    left = np.minimum(np.asarray(rules.capacities, np.int64), devices)
    edges, costs = [NOWHERE] * devices, [0.0] * devices
    sizes = torch.bincount(clusters.labels, minlength=clusters.count)
    nothing = torch.zeros(1, dtype=torch.float64)
    by_size = sizes.argsort(descending=True, stable=True).tolist()
    waiting: list[int] = []
    for members in [clusters.members(number).tolist() for number in by_size] + [waiting]:
        share = left if members is waiting else np.minimum(_dealt(len(members), left), left)
        own = Rules(share.tolist(), rules.latency_limit, rules.latency_weight, rules.margin)
        now = None if current is None else [current[device] for device in members]
        at = latency[members]
        found = assign(at, nothing.expand(at.shape), own, now)
        for device, edge, cost in zip(members, found.edges, found.costs, strict=True):
            edges[device], costs[device] = edge, cost
            if edge != NOWHERE:
                left[edge] -= 1
            elif members is not waiting:
                waiting.append(device)
    seconds = latency.double().numpy()
    left_out = {
        device: _reason(seconds[device], _within(seconds[device], rules), rules)
        for device, edge in enumerate(edges)
        if edge == NOWHERE
    }
    return Assignment(tuple(edges), tuple(costs), left_out)


def _within(seconds: NDArray[np.float64], rules: Rules) -> NDArray[np.bool_]:
    within: NDArray[np.bool_] = np.isfinite(seconds) & (seconds <= rules.latency_limit)
    return within


def _cost(seconds: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """An edge that cannot be reached costs more than any other, so that costs stay finite."""
    reached = np.where(np.isfinite(seconds), seconds, 0.0)
    longest = reached.max(initial=0.0) or 1.0
    cost: NDArray[np.float64] = np.where(
        np.isfinite(seconds), weight * reached / longest, weight * _FAR
    )
    return cost


def _solve(
    cost: NDArray[np.float64], allowed: NDArray[np.bool_], capacities: Sequence[int]
) -> list[int]:
    """Edge of each device; as many placed as can be, then the cheapest of such assignments."""
    devices, edges = cost.shape
    if not devices:
        return []
    places = np.minimum(np.asarray(capacities, np.int64), devices)
    cheapest = np.where(allowed, cost, np.inf).argmin(1)
    if bool(allowed.any(1).all()) and bool(
        (np.bincount(cheapest, minlength=edges) <= places).all()
    ):
        return [int(edge) for edge in cheapest]  # no capacity binds
    outside = _above(cost)
    padded = np.where(allowed, cost, 2 * outside)
    columns = np.repeat(np.arange(edges), places)
    table = np.hstack([padded[:, columns], np.full((devices, devices), outside)])
    _, place = _cheapest(table)
    chosen = np.append(columns, np.full(devices, NOWHERE))[place]
    return [int(edge) for edge in chosen]


def _above(cost: NDArray[np.float64]) -> float:
    """A cost that no number of others adds up to."""
    return float(cost.shape[0] * (np.abs(cost).max(initial=0.0) + 1.0))


def _shares(sizes: NDArray[np.float64], edges: int) -> NDArray[np.int64]:
    """How many edges each cluster gets: at least one, and then in proportion to its size."""
    times = np.ones(len(sizes), np.int64)
    for _ in range(edges - len(sizes)):
        times[np.argmax(sizes / times)] += 1
    return times


def _dealt(count: int, left: NDArray[np.int64]) -> NDArray[np.int64]:
    """`count` places over edges in proportion to the places they have left, rounded up."""
    total = max(int(left.sum()), 1)
    return -(-count * left // total)


def _reason(seconds: NDArray[np.float64], allowed: NDArray[np.bool_], rules: Rules) -> str:
    if not bool(np.isfinite(seconds).any()):
        return "it reaches no edge that is there"
    if not bool(allowed.any()):
        return (
            f"no edge within the latency limit of {1e3 * rules.latency_limit:.4g} ms; "
            f"the nearest is {1e3 * float(seconds.min()):.4g} ms away"
        )
    full = [str(number) for number, open_ in enumerate(allowed) if open_]
    return (
        f"all {sum(rules.capacities)} places of the edges are taken"
        if len(full) == len(seconds)
        else f"the edges within the latency limit (number {', '.join(full)}) are full"
    )


def _cheapest(costs: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the cheapest assignment."""
    from scipy.optimize import linear_sum_assignment  # late: a device never needs it

    rows, columns = linear_sum_assignment(costs)
    return rows, columns

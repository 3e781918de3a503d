"""How long the cloud takes to cluster devices and assign them to edges, from 100 to 1,000.

    python benchmarks/cluster.py                    # writes docs/results/cluster-scale.json

Fingerprints of d = 256 axes are drawn, devices in as many groups as there are edges; nothing is
trained. Timed apart: unpacking, angles, clustering by eigengap, assignment
under capacities of 1.2 equal shares. Seconds are those of the processor, all threads together, so
that they stand on a busy machine too; `wall_s` is what went by.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, TypeVar

import torch
from measured import machine, print_table, write_json
from sklearn.metrics import adjusted_rand_score

from elsa.core.assign import Rules, assign, distances, match
from elsa.core.cluster import cluster
from elsa.core.moves import angles, packed_move, unpacked_moves

OUT = Path("docs/results/cluster-scale.json")
AXES = 256
Result = TypeVar("Result")


def drawn(devices: int, groups: int, seed: int) -> tuple[list[bytes], torch.Tensor]:
    """Packed fingerprints of devices in groups, and their groups."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(devices) % groups
    centres = torch.randn(groups, AXES, generator=draw)
    prints = []
    for label in labels.tolist():
        went = centres[label] + torch.randn(AXES, generator=draw)
        prints.append(packed_move(torch.nn.functional.normalize(went, dim=0)))
    return prints, labels


def measure(devices: int, edges: int, seed: int) -> dict[str, Any]:
    """Seconds of each part, and whether the groups were found."""
    sent, groups = drawn(devices, edges, seed)
    draw = torch.Generator().manual_seed(seed + 1)
    latency = torch.rand(devices, edges, generator=draw, dtype=torch.float64)
    room = (round(1.2 * devices / edges),) * edges
    rules = Rules(room, 0.95, 0.2, 0.05)
    seconds: dict[str, float] = {}

    def timed(what: str, work: Callable[[], Result]) -> Result:
        began = process_time()
        result = work()
        seconds[what] = process_time() - began
        return result

    started = perf_counter()
    moves = timed("unpack_s", lambda: unpacked_moves(sent, AXES))
    apart = timed("angles_s", lambda: angles(moves))
    found = timed("cluster_s", lambda: cluster(apart, 0, seed))

    def placed() -> int:
        home = match(found, latency, rules)
        return len(assign(latency, distances(apart, found, home), rules).left_out)

    left_out = timed("assign_s", placed)
    wall = perf_counter() - started
    return {
        "devices": devices,
        "edges": edges,
        **seconds,
        "total_s": sum(seconds.values()),
        "wall_s": wall,
        "bytes": sum(map(len, sent)),
        "clusters": found.count,
        "adjusted_rand": float(adjusted_rand_score(groups, found.labels)),
        "left_out": left_out,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--edges", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measure(20, 2, 0)  # whatever is imported late is now there
    rows = [measure(it, options.edges, options.seed) for it in options.devices]
    print_table(rows)
    facts = {"threads": options.threads, "seed": options.seed, "axes": AXES}
    write_json(options.out, {"machine": machine(), **facts, "rows": rows})


if __name__ == "__main__":
    main()

"""Bytes of fingerprints beside those of a round's activations, metered in the quick start.

    python benchmarks/fingerprint_bytes.py             # writes docs/results/fingerprint-bytes.json

One global round of the quick start with `cluster.strategy = "behaviour"` and trust, two of its ten
devices drawn; everything counted per device. A watched edge round with fingerprints is compared
with the next one, without: the difference is what fingerprints add to the frames.
"""

import argparse
from pathlib import Path
from typing import Any

from measured import commit, machine, print_table, write_json

from elsa.config.load import load_config
from elsa.engine.build import build_federation, open_sources
from elsa.engine.machine import prepare
from elsa.engine.simulate import Simulation
from elsa.wire.transport import Passage
from elsa.wire.watching import Behaviours

OUT = Path("docs/results/fingerprint-bytes.json")
SETTINGS = (
    "federation.participation=0.2",
    "federation.rounds=1",
    "cluster.strategy=behaviour",
    "cluster.trust=true",
    "run.threads=1",
)


class Frames:
    """A layer that notes the size of each frame of behaviours, by edge round."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.devices = 0

    def __call__(self, passage: Passage) -> bytes:
        """Note it; it passes unchanged."""
        if isinstance(passage.message, Behaviours):
            told = passage.message
            self.sizes[told.edge_round] = self.sizes.get(told.edge_round, 0) + len(passage.data)
            self.devices += len(told.behaviours) if told.edge_round == 0 else 0
        return passage.data


def measure(preset: str) -> dict[str, Any]:
    """Bytes with a preset of the wire."""
    config = load_config(None, [*SETTINGS, f"wire.preset={preset}"])
    prepare(config.run.threads)
    frames = Frames()
    federation = build_federation(config, open_sources(config), [frames])
    Simulation(federation).train_round()
    kinds = federation.meter.totals("kind", tier="device_edge")
    moved = sum(kinds[kind,].bytes for kind in ("Activations", "Gradients")) / frames.devices
    print_ = (frames.sizes[0] - frames.sizes[1]) / frames.devices
    return {
        "wire": preset,
        "devices": frames.devices,
        "fingerprint_bytes": print_,
        "watched_edge_round_bytes": frames.sizes[1] / frames.devices,
        "activation_and_gradient_bytes": moved,
        "percent": 100 * print_ / moved,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    rows = [measure(preset) for preset in ("exact", "balanced")]
    print_table(rows)
    facts = {"commit": commit(), "settings": SETTINGS}
    write_json(options.out, {"machine": machine(), **facts, "rows": rows})


if __name__ == "__main__":
    main()

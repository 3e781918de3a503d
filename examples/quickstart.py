"""Fine-tune MiniLM on TREC questions that lie on ten devices, watch it, and use the result.

Run: python examples/quickstart.py [KEY=VALUE ...], for example federation.rounds=3
"""

import sys

import elsa
from elsa.record import events


def watch(event: events.Event) -> None:
    """Print what the global adapters reach after each round."""
    if isinstance(event, events.Evaluated):
        print(f"round {event.round + 1}: test loss {event.loss:.3f}, accuracy {event.accuracy:.3f}")


def main() -> None:
    """Train, then say where the adapter lies and what it cost."""
    config = elsa.load_config(overrides=sys.argv[1:])
    result = elsa.run(config, listen=watch, say=print)
    summary = result.summary
    print(f"accuracy {summary['accuracy']:.3f}, on the worst device ", end="")
    print(f"{summary['accuracy_worst_device']:.3f}")
    moved = summary["bytes"]["device_to_edge"] + summary["bytes"]["edge_to_device"]
    print(f"{moved / 1e6:.0f} MB between devices and edges, adapter in {result.directory}/adapter")


if __name__ == "__main__":
    main()

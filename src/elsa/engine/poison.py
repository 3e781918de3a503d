"""Who is poisoned and how, from the words of `[attack]` to the objects that do it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from elsa.config.schema import Attack, Config
from elsa.core.poison import Forgery, FreeRide, Noise, Stretch
from elsa.data.batches import Examples
from elsa.roles.attacker import Plot

_PURPOSE = int.from_bytes(b"poison")
"""What the draw of devices is for, so that no other stream of the seed coincides with it."""

_FORGERIES: Mapping[str, Callable[[Attack], Forgery | None]] = {
    "label-flip": lambda _: None,
    "random": lambda attack: Noise(attack.scale),
    "sign-flip": lambda attack: Stretch(-attack.scale),
    "scaled": lambda attack: Stretch(attack.scale),
    "free-rider": lambda attack: FreeRide(attack.noise),
}


def poisoned(config: Config, names: Sequence[str]) -> frozenset[str]:
    """The devices that the config poisons, of all N by name.

    A part of them is drawn among devices with ordinary data, so that the honest ones with rare or
    little data stay honest; with one seed a larger part holds a smaller one.
    """
    attack, count = config.attack, len(names)
    if attack.kind == "none":
        return frozenset()
    if attack.devices:
        return frozenset(names[number] for number in attack.devices)
    apart = config.partition.small_devices + config.partition.rare_devices
    order = np.random.default_rng((config.run.seed, _PURPOSE)).permutation(count - apart)
    return frozenset(names[number] for number in order[: max(1, round(attack.fraction * count))])


def plot_of(config: Config, device: str) -> Plot:
    """When and what a poisoned device forges."""
    attack = config.attack
    words = f"{config.run.seed}/{device}/poison"
    seed = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8])
    return Plot(attack.first_round, attack.until_round, _FORGERIES[attack.kind](attack), seed)


def poisoned_rows(config: Config, examples: Examples, classes: int) -> Examples:
    """What a poisoned device trains on: its rows, each class turned into the next if asked."""
    if config.attack.kind != "label-flip":
        return examples
    assert examples.labels is not None
    return replace(examples, labels=(examples.labels + 1) % classes)

"""Splits fitted to the devices of a federation: checked, chosen, and changed between rounds.

When a block changes hands, its adapters are where they always are between rounds, in the global
ones, and AdamW's moments of them move with the block: from the device to its copy of the trunk at
the edge, or back. A trunk that an edge's devices share keeps moments of its own; a device then
starts the blocks that it gains from zero.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from torch import Tensor

from elsa.config.schema import Config
from elsa.core.cost import step_work
from elsa.core.plan import Chosen, Option, fit_jointly, refined, settled
from elsa.core.split import Split
from elsa.engine.build import Sources
from elsa.engine.clock import FREE, turns_of
from elsa.engine.federation import Federation
from elsa.engine.parts import ModelParts
from elsa.engine.prices import Price, Prices, device_memories
from elsa.engine.schedule import Leg, finish_times
from elsa.engine.tasks import models_of
from elsa.errors import SplitError
from elsa.roles.attacker import Attacker
from elsa.roles.device import Device
from elsa.roles.edge import Edge

LEGS = 200
"""Local steps, of all devices of an edge together, by which splits are compared."""
MEMORY = 0.5
"""Weight of the newest measurement in a device's pace."""
SHOWN = 5


@dataclass(frozen=True)
class Lack:
    """A device that cannot take part.

    Attributes:
        device: its name.
        memory: bytes that it can hold.
        least: the price of the split that needs the least memory.
    """

    device: str
    memory: float
    least: Price

    @property
    def bytes(self) -> float:
        """What is lacking."""
        return self.least.memory.total - self.memory

    def __str__(self) -> str:
        need, split = self.least.memory, self.least.split
        return (
            f"{self.device}: holds {_mb(self.memory)} and needs {_mb(need.total)} with "
            f"p = {split.bottom}, q = {split.top} ({_mb(need.weights)} weights, "
            f"{_mb(need.adapters)} adapters and moments, {_mb(need.step)} a step); "
            f"{_mb(self.bytes)} are lacking"
        )


class Planner:
    """Knows what every split would cost every device, and who has which.

    Attributes:
        config: what is planned.
        prices: of each device's task.
        memories: bytes that each device can hold.
        demands: what each device's batches ask for.
    """

    def __init__(self, federation: Federation, sources: Sources, config: Config) -> None:
        names = list(federation.devices)
        self._models = models_of(config, sources.tasks, names)
        priced = {task.model: Prices(config, task.model) for task in sources.tasks}
        self.prices = {name: priced[model] for name, model in self._models.items()}
        self.memories = device_memories(config.network, names, config.run.seed)
        self._federation = federation
        self.config = config
        self.demands = {
            name: self.prices[name].demand(device.epoch_lengths(), device.epoch_predicted())
            for name, device in federation.devices.items()
        }
        self._paces = dict.fromkeys(names, 1.0)
        self._splits: dict[str, Split] = {}

    def price_list(self, device: str) -> list[Price]:
        """What each split would cost a device, whether it fits or not."""
        speed = self._federation.speed_of(device)
        return self.prices[device].prices(self.demands[device], speed, self._paces[device])

    def legs(self, device: str, split: Split, steps: range) -> list[Leg]:
        """What the clock would see of a device's local steps with a split."""
        speed, pace = self._federation.speed_of(device), self._paces[device]
        trunk, turns = self.config.federation.trunk, FREE
        for members in self._federation.cloud.assignment.values():
            turns = turns_of(trunk, members).get(device, turns)
        demand = self.demands[device]
        return self.prices[device].legs(demand, speed, split, pace, steps, turns)

    def lacks(self) -> list[Lack]:
        """The devices that cannot hold any split."""
        found = []
        for name, memory in self.memories.items():
            least = min(self.price_list(name), key=lambda it: it.memory.total)
            if least.memory.total > memory:
                found.append(Lack(name, memory, least))
        return found

    def check(self) -> None:
        """Raise SplitError with every device that cannot take part, and what it lacks."""
        if not (lacks := self.lacks()):
            return
        more = [f"and {len(lacks) - SHOWN} more"] if len(lacks) > SHOWN else []
        advice = (
            "a smaller train.batch_size, model.max_tokens or adapter.rank, model.precision = "
            "'bfloat16', split.mode = 'fitted' or a smaller model need less; "
            "`elsa plan` shows all devices"
        )
        lines = [
            f"{len(lacks)} of {len(self.memories)} devices cannot take part, for their memory "
            "(network.device_memory_mb):",
            *(str(it) for it in lacks[:SHOWN]),
            *more,
            advice,
        ]
        raise SplitError("\n  ".join(lines))

    def choose(self, devices: Sequence[str]) -> dict[str, Price]:
        """A split for each of an edge's devices that can take part; none of an edge without any."""
        if not devices:
            return {}
        prices = {
            name: {it.split: it for it in own if it.memory.total <= self.memories[name]}
            for name in devices
            if (own := self.price_list(name))
        }
        prices = {name: own for name, own in prices.items() if own}
        options = {
            name: [self.prices[name].option(it) for it in own.values()]
            for name, own in prices.items()
        }
        current = {
            name: self.prices[name].option(own[split])
            for name, own in prices.items()
            if (split := self._splits.get(name)) in own
        }

        federation = self.config.federation
        steps = min(federation.edge_rounds * federation.steps, max(LEGS // len(devices), 2))
        legs_of = cache(lambda name, split: self.legs(name, split, range(steps)))

        def clock(chosen: Chosen) -> float:
            legs = [legs_of(name, it.split) for name, it in chosen.items()]
            return max(finish_times(legs), default=0.0)

        starts = [fit_jointly(options), *_alike(options)]
        best = refined(starts, options, clock)
        chosen = settled(current, best, self.config.split.margin, clock)
        return {name: prices[name][it.split] for name, it in chosen.items()}

    def replan(self, round_: int) -> dict[str, Split]:
        """If it is time, give every device the split that suits it; return those that are new."""
        if round_ % self.config.split.every and self._splits:
            return {}
        changed: dict[str, Split] = {}
        for edge, names in self._federation.cloud.assignment.items():
            for name, price in self.choose(names).items():
                if self._splits.get(name) != price.split:
                    device = self._federation.devices[name]
                    hand_over(device, self._federation.edges[edge], self._models[name], price.split)
                    changed[name] = self._splits[name] = price.split
        return changed

    def reckoned(self) -> dict[str, Any]:
        """What plan.json holds: bytes and operations of a step of each device, as split now.

        Beside them, those of the whole model on the same device. Plain values for JSON.
        """
        plain = self.config.split
        rows = []
        for name, demand in self.demands.items():
            prices = self.prices[name]
            split = self._splits.get(name, Split.of(prices.shape.blocks, plain.bottom, plain.top))
            whole, whole_flops = prices.whole(demand)
            limit = self.memories[name]
            rows.append(
                {
                    "device": name,
                    "split": [split.bottom, split.trunk, split.top],
                    "memory": asdict(prices.memory(demand, split)),
                    "flops": step_work(prices.shape, split, demand.passes).device,
                    "whole_memory": asdict(whole),
                    "whole_flops": whole_flops,
                    "memory_limit": limit if math.isfinite(limit) else None,
                }
            )
        return {"devices": rows}

    def observe(self, device: str, pace: float) -> None:
        """Take a device's measured time of an edge round, to what its declared speed says."""
        self._paces[device] += MEMORY * (pace - self._paces[device])

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on from here."""
        splits = {name: (it.bottom, it.top) for name, it in self._splits.items()}
        return {"splits": splits, "paces": dict(self._paces)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state`; the parties' moments are restored afterwards."""
        self._paces = dict(state["paces"])
        for name, cuts in state["splits"].items():
            self._splits[name] = Split.of(self.prices[name].shape.blocks, *cuts)
            self._federation.devices[name].refit(
                self._models[name].segments(self._splits[name]), {}
            )


def planner_of(federation: Federation, sources: Sources) -> Planner | None:
    """The planner of a config that fits splits or limits memory; None of one that does neither.

    Raises:
        SplitError: a device cannot hold what it must.
    """
    config = federation.config
    if config.split.mode == "fixed" and not config.network.device_memory_mb:
        return None
    planner = Planner(federation, sources, config)
    planner.check()
    return planner


def hand_over(device: Device | Attacker, edge: Edge, model: ModelParts, split: Split) -> None:
    """Give a device another split; the moments of blocks that change hands move with them."""
    segments = model.segments(split)
    own = set(segments.adapter_names)
    kept: dict[str, Tensor] = {}
    given: dict[str, Tensor] = {}
    for key, value in {**edge.moments_of(device.name), **device.moments()}.items():
        (kept if key.partition("/")[2] in own else given)[key] = value
    device.refit(segments, kept)
    edge.set_moments(device.name, given)


def _alike(options: Mapping[str, Sequence[Option]]) -> list[Chosen]:
    """The same split for all, for every split that all can have."""
    by_split = {name: {it.split: it for it in own} for name, own in options.items()}
    common = set.intersection(*(set(own) for own in by_split.values())) if options else set()
    alike = sorted(common, key=lambda it: (it.bottom, it.top))
    return [{name: own[split] for name, own in by_split.items()} for split in alike]


def _mb(size: float) -> str:
    return f"{size / 1e6:.1f} MB"

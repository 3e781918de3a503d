"""All parties of a run in one process, with the links between them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from elsa.config.schema import Config
from elsa.core.cost import ModelShape
from elsa.engine.clock import Speed
from elsa.engine.cloudstate import known_to, remind
from elsa.record.shelf import Shelf
from elsa.roles.attacker import Attacker
from elsa.roles.cloud import Cloud
from elsa.roles.device import Device
from elsa.roles.edge import Edge
from elsa.wire.meter import Meter
from elsa.wire.transport import Layer


@dataclass(frozen=True)
class Federation:
    """The built parties.

    Attributes:
        config: what they were built from.
        cloud: the root.
        edges: by name.
        devices: by name, those that train.
        testers: by edge name, devices that only evaluate: those with the common test rows, and all
            where one trainer has their rows.
        speeds: of each device, for the virtual clock.
        latencies: seconds one way, by device and edge.
        shape: what the model's cost depends on.
        meter: counts all links.
        layers: of every link, the meter among them.
        shelf: where devices and edges keep their moments; None has each keep its own.
    """

    config: Config
    cloud: Cloud
    edges: Mapping[str, Edge]
    devices: Mapping[str, Device | Attacker]
    testers: Mapping[str, Sequence[Device]]
    speeds: Mapping[str, Speed]
    latencies: Mapping[tuple[str, str], float]
    shape: ModelShape
    meter: Meter
    layers: Sequence[Layer]
    shelf: Shelf | None = None

    def speed_of(self, device: str) -> Speed:
        """What a device can do, and its link to the edge server that it is at now."""
        speed = self.speeds[device]
        for edge, members in self.cloud.assignment.items():
            if device in members:
                return replace(speed, latency=self.latencies[device, edge])
        return speed

    def poisoned(self, round_: int) -> frozenset[str]:
        """Names of the devices that are poisoned in a global round."""
        return frozenset(
            name
            for name, device in self.devices.items()
            if isinstance(device, Attacker) and device.attacks(round_)
        )

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold, by owner and name, but for what is shelved."""
        return known_to(self.cloud) | self.held_by(self.edges, self.devices)

    def held_by(self, edges: Iterable[str], devices: Iterable[str]) -> dict[str, Tensor]:
        """The part of `tensors` that is of these edges and devices."""
        held: dict[str, Tensor] = {}
        parties: list[tuple[str, str, Device | Attacker | Edge]] = []
        parties += [("device", name, self.devices[name]) for name in devices]
        parties += [("edge", name, self.edges[name]) for name in edges]
        for kind, name, party in parties:
            moments = party.moments() if self.shelf is None else {}
            parts: dict[str, Mapping[str, Tensor]] = {"": moments, "-memory": party.memory()}
            if isinstance(party, Edge):
                parts["-flight"] = party.flights()
            for part, tensors in parts.items():
                held |= {f"{kind}{part}/{name}/{key}": value for key, value in tensors.items()}
        return held

    def positions(self) -> dict[str, int]:
        """Where each device's stream of batches stands."""
        return {name: device.position for name, device in self.devices.items()}

    def restore(
        self, round_: int, tensors: Mapping[str, Tensor], positions: Mapping[str, int]
    ) -> None:
        """Go on from what `tensors` and `positions` gave before this round.

        What is shelved must have been restored before.
        """
        remind(self.cloud, round_, tensors)
        self.hand_back(tensors, self.edges, positions)

    def hand_back(
        self, tensors: Mapping[str, Tensor], edges: Iterable[str], positions: Mapping[str, int]
    ) -> None:
        """Have these edges, and the devices whose positions are given, go on from `tensors`."""
        held = by_party(tensors)
        for name, position in positions.items():
            moments = held["device", name] if self.shelf is None else None
            self.devices[name].restore(moments, held["device-memory", name], position)
        for name in edges:
            moments = held["edge", name] if self.shelf is None else None
            self.edges[name].restore(moments, held["edge-memory", name], held["edge-flight", name])


def by_party(tensors: Mapping[str, Tensor]) -> Mapping[tuple[str, str], dict[str, Tensor]]:
    """What `Federation.held_by` gave, by what it is and whose; empty where there is nothing."""
    held: dict[tuple[str, str], dict[str, Tensor]] = defaultdict(dict)
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        owner, _, name = rest.partition("/")
        held[kind, owner][name] = value
    return held


def shelved(federation: Federation, folder: Path) -> Federation:
    """The federation with its moments in a file in `folder`, not in memory."""
    shelf = Shelf(folder)
    for device in federation.devices.values():
        device.keep_moments_in(shelf.below("device/"))
    for name, edge in federation.edges.items():
        edge.keep_moments_in(shelf.below(f"edge/{name}/"))
    return replace(federation, shelf=shelf)

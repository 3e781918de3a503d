"""All parties of a run in one process, with the links between them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from elsa.config.schema import Config
from elsa.core.cost import ModelShape
from elsa.engine.clock import Speed
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
        held = {f"global/{name}": value for name, value in self.cloud.adapters.items()}
        held |= {f"server/{name}": value for name, value in self.cloud.moments().items()}
        for name, edge in self.edges.items():
            held |= {f"edge-flight/{name}/{key}": it for key, it in edge.flights().items()}
        for kind, parties in (("device", self.devices), ("edge", self.edges)):
            for name, party in parties.items():
                moments = party.moments() if self.shelf is None else {}
                for key, value in moments.items():
                    held[f"{kind}/{name}/{key}"] = value
                for key, value in party.memory().items():
                    held[f"{kind}-memory/{name}/{key}"] = value
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
        held: dict[tuple[str, str], dict[str, Tensor]] = defaultdict(dict)
        adapters: dict[str, Tensor] = {}
        server: dict[str, Tensor] = {}
        for key, value in tensors.items():
            kind, _, rest = key.partition("/")
            if kind == "global":
                adapters[rest] = value
            elif kind == "server":
                server[rest] = value
            else:
                owner, _, name = rest.partition("/")
                held[kind, owner][name] = value
        ordered = {name: adapters[name] for name in self.cloud.adapters}
        self.cloud.restore(ordered, round_, server)
        for name, device in self.devices.items():
            moments = held["device", name] if self.shelf is None else None
            device.restore(moments, held["device-memory", name], positions[name])
        for name, edge in self.edges.items():
            moments = held["edge", name] if self.shelf is None else None
            edge.restore(moments, held["edge-memory", name], held["edge-flight", name])


def shelved(federation: Federation, folder: Path) -> Federation:
    """The federation with its moments in a file in `folder`, not in memory."""
    shelf = Shelf(folder)
    for device in federation.devices.values():
        device.keep_moments_in(shelf.below("device/"))
    for name, edge in federation.edges.items():
        edge.keep_moments_in(shelf.below(f"edge/{name}/"))
    return replace(federation, shelf=shelf)

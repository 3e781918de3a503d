"""All parties of a run in one process, with the links between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from elsa.config.schema import Config
from elsa.core.cost import ModelShape
from elsa.engine.clock import Speed
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
        testers: by edge name, devices that hold the common test rows and only evaluate.
        speeds: of each device, for the virtual clock.
        shape: what the model's cost depends on.
        meter: counts all links.
        layers: of every link, the meter among them.
    """

    config: Config
    cloud: Cloud
    edges: Mapping[str, Edge]
    devices: Mapping[str, Device]
    testers: Mapping[str, Sequence[Device]]
    speeds: Mapping[str, Speed]
    shape: ModelShape
    meter: Meter
    layers: Sequence[Layer]

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold as tensors, by owner and name."""
        held = {f"global/{name}": value for name, value in self.cloud.adapters.items()}
        for device in self.devices.values():
            for key, value in device.moments().items():
                held[f"device/{device.name}/{key}"] = value
        for edge in self.edges.values():
            for key, value in edge.moments().items():
                held[f"edge/{edge.name}/{key}"] = value
        return held

    def positions(self) -> dict[str, int]:
        """Where each device's stream of batches stands."""
        return {name: device.position for name, device in self.devices.items()}

    def restore(
        self, round_: int, tensors: Mapping[str, Tensor], positions: Mapping[str, int]
    ) -> None:
        """Go on from what `tensors` and `positions` gave before this round."""
        held: dict[str, dict[str, dict[str, Tensor]]] = {"device": {}, "edge": {}}
        adapters: dict[str, Tensor] = {}
        for key, value in tensors.items():
            kind, _, rest = key.partition("/")
            if kind == "global":
                adapters[rest] = value
            else:
                owner, _, name = rest.partition("/")
                held[kind].setdefault(owner, {})[name] = value
        self.cloud.restore({name: adapters[name] for name in self.cloud.adapters}, round_)
        for name, device in self.devices.items():
            device.restore(held["device"].get(name, {}), positions[name])
        for name, edge in self.edges.items():
            edge.restore(held["edge"].get(name, {}))

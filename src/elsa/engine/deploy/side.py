"""What the cloud holds of a federation whose edges and devices are elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from elsa.config.schema import Config
from elsa.engine.build import assignment_of
from elsa.engine.cloudstate import known_to, remind
from elsa.roles.cloud import Cloud
from elsa.roles.muster import Musterer
from elsa.wire.meter import Meter


@dataclass(frozen=True)
class CloudSide:
    """The cloud with what belongs to it; `engine.runner.State` says what each part is for."""

    config: Config
    cloud: Cloud
    meter: Meter
    musterer: Musterer

    @property
    def shelf(self) -> None:
        """None: devices and edges keep their moments themselves."""
        return None

    @property
    def edges(self) -> list[str]:
        """Names of all edges."""
        return list(assignment_of(self.config))

    def poisoned(self, round_: int) -> frozenset[str]:  # noqa: ARG002
        """None that the cloud knows of."""
        return frozenset()

    def tensors(self) -> dict[str, Tensor]:
        """The global adapters, and what the cloud's optimizer remembers."""
        return known_to(self.cloud)

    def positions(self) -> dict[str, int]:
        """None: how far a device is, the device knows."""
        return {}

    def restore(
        self, round_: int, tensors: Mapping[str, Tensor], positions: Mapping[str, int]
    ) -> None:
        """Go on from what `tensors` gave before this round."""
        assert not positions
        remind(self.cloud, round_, tensors)

"""Which edge server a device goes to, and whether its updates count."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from elsa.config.section import Count, Section


class Cluster(Section):
    """Who goes to which edge, and whose update counts; see docs/clustering.md."""

    strategy: Literal["none", "random", "latency", "behaviour", "mixed"] = "none"
    """How devices come to edges."""
    trust: bool = False
    """Whether updates are weighed by how their device behaves."""
    clusters: Annotated[int, Field(ge=0)] = 0
    """Number of clusters; 0 lets the eigengap say."""
    every: Annotated[int, Field(ge=0)] = 5
    """Rounds between clusterings, the first in round 0; 0 clusters only then."""
    latency_weight: Annotated[float, Field(ge=0, le=1)] = 0.2
    """lambda: how much latency counts against divergence."""
    latency_limit_ms: Annotated[float, Field(ge=0)] = 0.0
    """One way, between a device and its edge; 0 for none."""
    capacity: Annotated[int, Field(ge=0)] = 0
    """Devices that an edge takes; 0 for equal shares."""
    margin: Annotated[float, Field(ge=0)] = 0.05
    """What a move must gain, in units of the assignment's cost."""
    probes: str = "nq-open"
    """Public texts: name of an asset, or a file."""
    probes_text: str = "text"
    """Column of the text in that file."""
    probe_count: Count = 128
    fingerprint: Literal["move", "gaussian"] = "move"
    """What is compared: which way states moved, or, as in the paper, how they lie."""
    dimensions: Annotated[int, Field(ge=0)] = 0
    """Axes of a fingerprint; 0 takes as many as suit its kind."""
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Part of the evidence so far that an edge round of full evidence keeps."""
    least_trust: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Trust below which a device does not count."""

    @property
    def axes(self) -> int:
        """d; of a move, less where the model has fewer hidden values."""
        return self.dimensions or (256 if self.fingerprint == "move" else 16)

    @model_validator(mode="after")
    def _enough_probes(self) -> "Cluster":
        if self.fingerprint == "gaussian" and self.probe_count <= 3 * self.axes:
            raise ValueError(
                f"cluster.probe_count = {self.probe_count} is too few for cluster.dimensions = "
                f"{self.axes}: more than three probes are needed for each, or a covariance "
                "says nothing"
            )
        return self

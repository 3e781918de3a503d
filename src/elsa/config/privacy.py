"""Tables about what others can learn of a device: rotation, noise, and the record for an audit."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from elsa.config.section import Count, Positive, Section

if TYPE_CHECKING:
    from elsa.config.schema import Config


class SsOp(Section):
    """The secret rotation of what an edge sees (semantic subspace orthogonal perturbation)."""

    rank: Annotated[int, Field(ge=0)] = 0
    """r, directions that are rotated; 0 rotates nothing."""
    angle: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest angle, in half turns."""
    fresh: Literal["fixed", "round", "batch"] = "fixed"
    about: Literal["mean", "origin"] = "mean"


class Noise(Section):
    """Clipping of what leaves a device, and Gaussian noise on it."""

    ratio: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of each value's noise in parts of `clip`; 0 neither clips nor adds any."""
    clip: Positive = 12.0
    """C, largest norm of a token's hidden state."""
    gradient_ratio: Annotated[float, Field(ge=0)] = 0.0
    """The same of the gradients at the second cut, in parts of `gradient_clip`."""
    gradient_clip: Positive = 0.01
    """Largest norm of a text's gradient."""
    update_ratio: Annotated[float, Field(ge=0)] = 0.0
    """The same of what a device changed of its adapters, in parts of `update_clip`."""
    update_clip: Positive = 1.0
    """Largest norm of what a device changed in an edge round, over all its adapters."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Delta for which epsilon is told."""


class Audit(Section):
    """The transcript that `elsa audit` attacks: what edge servers see of devices."""

    record_rounds: Annotated[int, Field(ge=0)] = 0
    """Global rounds to record, the first so many; 0 records nothing."""
    record_devices: Annotated[int, Field(ge=0)] = 0
    """Devices to record, the first so many; 0 records all."""
    megabytes: Count = 256
    """What is recorded at most."""


def noise_problem(config: "Config") -> str | None:
    """Say what noise is asked for on what never leaves a device, if any is."""
    if config.noise.gradient_ratio and config.split.freeze == "trunk":
        return (
            f"noise.gradient_ratio = {config.noise.gradient_ratio}: with split.freeze = 'trunk' no "
            "gradient leaves a device; leave noise.gradient_ratio at 0"
        )
    return None

"""Which attacks are possible."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elsa.config.schema import Config


def attack_problem(config: "Config") -> str | None:
    """Say why nobody can attack as the config says, if nobody can."""
    attack, devices = config.attack, config.federation.devices
    if attack.kind == "none":
        return None
    if bool(attack.devices) == bool(attack.fraction):
        return (
            f"attack.kind = '{attack.kind}' needs either attack.devices, the numbers of the "
            "poisoned devices, or attack.fraction above 0, and not both"
        )
    if attack.devices and max(attack.devices) >= devices:
        return (
            f"attack.devices names device {max(attack.devices)}; federation.devices = "
            f"{devices} has numbers 0 to {devices - 1}"
        )
    if 0 < attack.until_round <= attack.first_round:
        return (
            f"attack.until_round = {attack.until_round} must be above attack.first_round = "
            f"{attack.first_round}, or 0 to last to the end"
        )
    if attack.kind == "label-flip" and config.model.task == "causal-lm":
        return (
            "attack.kind = 'label-flip' needs labels, which model.task = 'causal-lm' has not; "
            "allowed: 'random', 'sign-flip', 'scaled', 'free-rider'"
        )
    return None

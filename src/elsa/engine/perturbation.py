"""From the settings of a config to how its devices perturb what leaves them."""

import hashlib

from elsa.config.privacy import Noise as NoiseSettings
from elsa.config.schema import Config
from elsa.core.noise import Noise
from elsa.core.secret import SecretSeed
from elsa.core.ssop import check_rank
from elsa.roles.perturb import Perturbation


def perturbation_of(config: Config, secret: SecretSeed, hidden: int) -> Perturbation | None:
    """How a device perturbs what leaves it; None where it does not.

    Raises:
        ConfigError: ssop.rank is above D.
    """
    ssop, noise = config.ssop, noise_of(config.noise)
    gradients, update = gradient_noise_of(config.noise), update_noise_of(config.noise)
    if not ssop.rank and noise is gradients is update is None:
        return None
    if ssop.rank:
        check_rank(ssop.rank, hidden)
    how = (ssop.rank, ssop.angle, ssop.fresh, ssop.about)
    return Perturbation(*how, secret, noise, gradients, update)


def noise_of(settings: NoiseSettings) -> Noise | None:
    """Clipping and noise of hidden states as set; None where there is none."""
    return Noise(settings.clip, settings.ratio) if settings.ratio else None


def gradient_noise_of(settings: NoiseSettings) -> Noise | None:
    """The same of gradients at the second cut."""
    ratio = settings.gradient_ratio
    return Noise(settings.gradient_clip, ratio) if ratio else None


def update_noise_of(settings: NoiseSettings) -> Noise | None:
    """The same of what a device changed of its adapters."""
    ratio = settings.update_ratio
    return Noise(settings.update_clip, ratio) if ratio else None


def simulated_secret(config: Config, device: str) -> SecretSeed:
    """A simulated device's secret; it follows from the seed, so that a run can be repeated."""
    return SecretSeed(hashlib.sha256(f"{config.run.seed}/{device}/ssop".encode()).digest())

"""What must stay on the device it was made on: no repr shows it, nothing serialises it."""

import hashlib
import math
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from elsa.errors import ConfigError, ElsaError

_SHORTEST = 16


class Secret:
    """Base of objects that never leave their process: `repr` hides them, pickle and copy refuse.

    Subclasses keep their values in slots whose names start with an underscore, so that there is
    no `__dict__` to walk and no dataclass field to export.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: secret>"

    def __getstate__(self) -> NoReturn:
        raise self._refusal()

    def __reduce__(self) -> NoReturn:
        raise self._refusal()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise self._refusal()

    def _refusal(self) -> ElsaError:
        return ElsaError(
            f"{type(self).__name__} is a device's secret and cannot be pickled, copied or saved; "
            "derive it again from the device's seed"
        )


class SecretSeed(Secret):
    """A device's private key, from which all its secret numbers follow.

    Numbers come from SHAKE-256, not from torch's generators: these start from 32 bits, which can
    be searched, and go on from a state that their output gives away.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Take `key`, at least 16 bytes that nobody else can guess.

        Raises:
            ConfigError: it is shorter.
        """
        if len(key) < _SHORTEST:
            raise ConfigError(
                f"a secret seed of {len(key)} bytes can be guessed; give at least {_SHORTEST}"
            )
        self._key = hashlib.sha256(key).digest()

    def derive(self, *purpose: str | int) -> "SecretSeed":
        """The seed for one purpose; from it neither this one nor any other can be found."""
        return SecretSeed(self._stream(repr(("derive", *purpose)), 32))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers in float64; the same each time."""
        drawn: Tensor = torch.special.ndtri(self._spread("normal", math.prod(shape)))
        return drawn.view(*shape)

    def uniform(self, count: int) -> Tensor:
        """Numbers evenly spread over (0, 1), in float64; the same each time."""
        return self._spread("uniform", count)

    def _spread(self, purpose: str, count: int) -> Tensor:
        words = np.frombuffer(self._stream(purpose, 8 * count), "<u8")
        return torch.from_numpy(((words >> 11) + 0.5) / 2.0**53)

    def _stream(self, purpose: str, size: int) -> bytes:
        return hashlib.shake_256(self._key + purpose.encode()).digest(size)

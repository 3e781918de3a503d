"""Adapters on their way between parties: computed and averaged in float32, sent as agreed on."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from elsa.errors import AdapterError

Sent = Literal["float32", "bfloat16"]
"""The type adapters are sent in; bfloat16 halves them, and rounds by at most 1 part in 256."""

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def wrap(adapters: Mapping[str, Tensor], sent: Sent) -> dict[str, Tensor]:
    """The adapters as they are sent."""
    return {name: value.to(_TYPES[sent]) for name, value in adapters.items()}


def unwrap(adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapters as they are computed with.

    Raises:
        AdapterError: one came as whole numbers, or in a type that nobody sends.
    """
    for name, value in adapters.items():
        if value.dtype not in _TYPES.values():
            raise AdapterError(f"{name}: came as {value.dtype}; allowed: {', '.join(_TYPES)}")
    return {name: value.float() for name, value in adapters.items()}

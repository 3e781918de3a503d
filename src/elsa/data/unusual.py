"""Honest devices whose rows are unlike all others': rare data, or very little of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elsa.errors import DataError

_PURPOSE = int.from_bytes(b"rare")
"""What the generator is for, so that it draws nothing that another stream of the seed draws."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Apart:
    """Rows that are set apart; R rows in all, each in one place.

    Attributes:
        ordinary: row numbers that are left for the other devices, sorted.
        small: those of each device with little data.
        rare: those of each device with rare data.
    """

    ordinary: Rows
    small: tuple[Rows, ...]
    rare: tuple[Rows, ...]


def set_apart(
    rows: int, labels: Rows | None, *, rare: int, small: int, small_rows: int, seed: int
) -> Apart:
    """Give the rarest class to the rare devices, in equal parts, and a handful to the small ones.

    Nobody else holds a row of that class then. The small devices' rows are drawn from the rest.

    Args:
        rows: R, how many rows there are.
        labels: [R] class numbers; needed where `rare` is above 0.
        rare: devices of rare data.
        small: devices of little data.
        small_rows: rows of each of them.
        seed: of the draws.

    Raises:
        DataError: there are not enough rows, or no labels.
    """
    generator = np.random.default_rng((seed, _PURPOSE))
    order = generator.permutation(rows)
    parts: list[Rows] = []
    if rare:
        if labels is None:
            raise DataError("partition.rare_devices needs labels, and these rows have none")
        counts = np.bincount(labels)
        scarce = int(np.argmin(np.where(counts > 0, counts, rows + 1)))
        if counts[scarce] < rare:
            raise DataError(
                f"the rarest class has {counts[scarce]} rows for partition.rare_devices = {rare}: "
                "lower it"
            )
        of_it = labels[order] == scarce
        parts = [np.sort(part) for part in np.array_split(order[of_it], rare)]
        order = order[~of_it]
    if small * small_rows >= len(order):
        raise DataError(
            f"partition.small_devices = {small} of partition.small_rows = {small_rows} rows leave "
            f"none of {len(order)} rows for other devices: lower one of them"
        )
    taken = order[: small * small_rows].reshape(small, small_rows)
    return Apart(
        np.sort(order[small * small_rows :]), tuple(np.sort(own) for own in taken), tuple(parts)
    )

"""Hidden states at the second cut that a device keeps when nothing learns below it.

Then a row's h2 never changes, so the edge is asked for it once, and every later step on the row is
the device's own.

Shapes: U_i tokens of row i that the top uses, D hidden size.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor


class Kept:
    """Rows of one set of examples, as many as there is room for.

    Rows come round once an epoch in a new order, so none is a better one to forget: what is held
    stays, and what found no room is asked for each time.
    """

    def __init__(self, capacity: int) -> None:
        """Start empty; hold `capacity` bytes at most."""
        self._capacity = capacity
        self._rows: dict[int, Tensor] = {}
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes held."""
        return self._used

    def missing(self, rows: Sequence[int]) -> list[int]:
        """Places in `rows` whose states are not held."""
        return [place for place, row in enumerate(rows) if row not in self._rows]

    def put(self, rows: Sequence[int], sizes: Sequence[int], h2: Tensor) -> dict[int, Tensor]:
        """Hold what there is room for.

        Args:
            rows: their numbers.
            sizes: U_i of each.
            h2: their states in a row [U, D].

        Returns:
            All of them, by row, for the batch that they came for.
        """
        ends = pairwise(accumulate(sizes, initial=0))
        cut = {row: h2[a:b] for row, (a, b) in zip(rows, ends, strict=True)}
        for row, states in cut.items():
            size = states.numel() * states.element_size()
            if row not in self._rows and self._used + size <= self._capacity:
                self._rows[row] = states.clone()
                self._used += size
        return cut

    def take(self, rows: Sequence[int], fresh: Mapping[int, Tensor]) -> Tensor:
        """The states of `rows` in a row [U, D], those not held from `fresh`."""
        return torch.cat([fresh[row] if row in fresh else self._rows[row] for row in rows])

    def clear(self) -> None:
        """Forget all, as the model below the cut is another."""
        self._rows.clear()
        self._used = 0

    def state(self) -> dict[str, Tensor]:
        """What is held, to `restore` it; empty where nothing is."""
        if not self._rows:
            return {}
        return {
            "rows": torch.tensor(list(self._rows)),
            "sizes": torch.tensor([len(states) for states in self._rows.values()]),
            "states": torch.cat(list(self._rows.values())),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Be as an earlier `state`."""
        self.clear()
        if state:
            self.put(state["rows"].tolist(), state["sizes"].tolist(), state["states"])

"""The three-part split of a model of M blocks (ELSA, arXiv 2601.13824, section on model splitting).

A device holds the embeddings, blocks [0, p) and blocks [M - q, M) with the head; its edge server
holds the o blocks between. p + o + q = M.
"""

from dataclasses import dataclass

from elsa.errors import SplitError


@dataclass(frozen=True)
class Split:
    """Numbers of blocks below, between and above the two cut layers.

    Attributes:
        bottom: p, blocks on the device below the first cut; at least 1.
        trunk: o, blocks on the edge server; at least 1.
        top: q, blocks on the device above the second cut, besides the head; 0 or more.
    """

    bottom: int
    trunk: int
    top: int

    @classmethod
    def of(cls, blocks: int, bottom: int, top: int) -> "Split":
        """Split a model of `blocks` blocks (M), the trunk taking what bottom and top leave.

        Raises:
            SplitError: if bottom < 1, top < 0, or nothing is left for the edge.
        """
        if bottom < 1:
            raise SplitError(
                f"split.bottom = {bottom}: a device keeps at least its first block, "
                f"so that bare embeddings never leave it; allowed: 1 to {blocks - 1 - max(top, 0)}"
            )
        if top < 0:
            raise SplitError(f"split.top = {top}: cannot be negative; 0 keeps only the head")
        if bottom + top >= blocks:
            raise SplitError(
                f"split.bottom + split.top = {bottom} + {top}: the model has {blocks} blocks and "
                f"the edge needs at least one of them; allowed: bottom + top <= {blocks - 1}"
            )
        return cls(bottom, blocks - bottom - top, top)

    @property
    def blocks(self) -> int:
        """M, the number of blocks of the whole model."""
        return self.bottom + self.trunk + self.top

    @property
    def bottom_blocks(self) -> range:
        """Global numbers of the blocks below the first cut."""
        return range(self.bottom)

    @property
    def trunk_blocks(self) -> range:
        """Global numbers of the blocks between the cuts."""
        return range(self.bottom, self.bottom + self.trunk)

    @property
    def top_blocks(self) -> range:
        """Global numbers of the blocks above the second cut."""
        return range(self.bottom + self.trunk, self.blocks)

"""Where a model of M blocks is cut.

three-part (ELSA, arXiv 2601.13824, section on model splitting): a device holds the embeddings,
blocks [0, p) and blocks [M - q, M) with the head; its edge server holds the o blocks between.
two-part (SplitLoRA, arXiv 2407.00952): the edge holds all from block p on, the head with it, and is
told the labels. whole: nothing is at the edge. p + o + q = M.
"""

from dataclasses import dataclass
from typing import Literal

from elsa.errors import SplitError

Layout = Literal["three-part", "two-part", "whole"]


@dataclass(frozen=True)
class Split:
    """Numbers of blocks below, between and above the two cut layers.

    Attributes:
        bottom: p, blocks on the device below the first cut; at least 1.
        trunk: o, blocks on the edge server; 0 only where the device has all of the model.
        top: q, blocks on the device above the second cut, besides the head; 0 or more.
        head_at_edge: whether the head is behind the trunk, at the edge.
    """

    bottom: int
    trunk: int
    top: int
    head_at_edge: bool = False

    @classmethod
    def of(cls, blocks: int, bottom: int, top: int, layout: Layout = "three-part") -> "Split":
        """Split a model of `blocks` blocks (M), the trunk taking what bottom and top leave.

        In other layouts than "three-part" it follows from `bottom` what is above it.

        Raises:
            SplitError: if bottom < 1, top < 0, or nothing is left for the edge.
        """
        if layout == "two-part":
            return cls(bottom, cls.of(blocks, bottom, 0).trunk, 0, head_at_edge=True)
        if layout == "whole" and 1 <= bottom <= blocks:
            return cls(bottom, 0, blocks - bottom)
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
    def layout(self) -> Layout:
        """What kind of split it is."""
        if self.head_at_edge:
            return "two-part"
        return "three-part" if self.trunk else "whole"

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

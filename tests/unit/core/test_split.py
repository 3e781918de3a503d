"""Splits: every block on exactly one side, and impossible ones refused with what is allowed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsa.core.split import Split
from elsa.errors import SplitError


@st.composite
def possible(draw: st.DrawFn) -> tuple[int, int, int]:
    """Blocks, bottom and top that fit: M >= p + q + 1, p >= 1, q >= 0."""
    bottom, trunk, top = draw(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 40)))
    return bottom + trunk + top, bottom, top


@settings(deadline=None)
@given(possible())
def test_every_block_lies_in_one_part_in_order(case: tuple[int, int, int]) -> None:
    blocks, bottom, top = case
    split = Split.of(blocks, bottom, top)
    parts = [*split.bottom_blocks, *split.trunk_blocks, *split.top_blocks]
    assert parts == list(range(blocks))
    assert (len(split.bottom_blocks), len(split.top_blocks)) == (bottom, top)
    assert split.blocks == blocks
    assert split.trunk == len(split.trunk_blocks) >= 1


@settings(deadline=None)
@given(st.integers(-2, 6), st.integers(-2, 6), st.integers(-2, 6))
def test_split_is_made_or_refused_never_wrong(blocks: int, bottom: int, top: int) -> None:
    fits = bottom >= 1 and top >= 0 and bottom + top < blocks
    try:
        split = Split.of(blocks, bottom, top)
    except SplitError:
        assert not fits
    else:
        assert fits
        assert (split.bottom, split.top, split.blocks) == (bottom, top, blocks)


def test_head_alone_above_the_cut_is_allowed() -> None:
    assert list(Split.of(6, 1, 0).top_blocks) == []


@settings(deadline=None)
@given(possible())
def test_other_layouts_leave_nothing_out_either(case: tuple[int, int, int]) -> None:
    blocks, bottom, top = case
    whole, two = (Split.of(blocks, bottom, top, layout) for layout in ("whole", "two-part"))
    assert (whole.trunk, two.top) == (0, 0)
    assert (whole.head_at_edge, two.head_at_edge) == (False, True)
    for split, layout in ((whole, "whole"), (two, "two-part")):
        assert (split.bottom, split.blocks, split.layout) == (bottom, blocks, layout)


def test_a_whole_model_may_be_one_block() -> None:
    assert Split.of(1, 1, 0, "whole").blocks == 1
    with pytest.raises(SplitError):
        Split.of(4, 0, 4, "whole")


@pytest.mark.parametrize(
    ("bottom", "top", "says"),
    [
        (0, 1, r"split\.bottom = 0: .* allowed: 1 to 4$"),
        (1, -1, r"split\.top = -1: .* 0 keeps only the head"),
        (3, 3, r"3 \+ 3: the model has 6 blocks .* bottom \+ top <= 5$"),
        (7, 0, r"7 \+ 0: the model has 6 blocks"),
    ],
)
def test_refusal_says_what_is_allowed(bottom: int, top: int, says: str) -> None:
    with pytest.raises(SplitError, match=says):
        Split.of(6, bottom, top)

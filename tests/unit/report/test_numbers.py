import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsa.report.numbers import NOTHING, clean, duration, fixed, number, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (2.5e6, "2.5 MB"),
        (7e9, "7.0 GB"),
        (3e15, "3000.0 TB"),
    ],
)
def test_sizes_are_in_powers_of_ten(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (99.9, "99.9 s"),
        (100, "1 min 40 s"),
        (3599.6, "1 h 0 min"),
        (7260, "2 h 1 min"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("value", [None, True, "3", math.nan, math.inf, 10**400, [1]])
def test_what_is_no_finite_number_is_none_and_a_dash(value: object) -> None:
    assert number(value) is None
    assert fixed(number(value)) == NOTHING


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_cleaned_text_can_be_written_and_hides_nothing(text: str) -> None:
    shown = clean(text, longest=20)
    assert len(shown) <= 20
    shown.encode()
    assert not set("\x00\x1b\u202e\u200b\ud800") & set(shown)
    plain = "".join(char for char in text if char.isalnum())
    if plain == text and len(text) <= 20:
        assert shown == text

"""The word that a person may have meant."""

import difflib
from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the one of `words` that is spelled most like `word`, if any is near."""
    lower = {other.lower(): other for other in words}
    matches = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return lower[matches[0]] if matches else None

"""Suggests the word that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the one of `known` most similar to `word`, ignoring case and dashes; empty if none is similar."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake is worth the import

    by_form = {_form(name): name for name in reversed(tuple(islice(known, 1000)))}
    near = get_close_matches(_form(word[:100]), by_form, n=1, cutoff=0.7)
    return by_form[near[0]] if near else ""


def _form(word: str) -> str:
    return word.casefold().replace("-", "_").replace(" ", "_")

"""What a fuzzed target may claim: promises that are kept, and where its inputs come from."""

from __future__ import annotations

import unicodedata
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")


class Broken(Exception):
    """A promise that was not kept."""


def claim(holds, promise, *shown):
    if not holds:
        raise Broken(promise, *shown)


def is_clean(text):
    """Whether a text is safe to print and to store: no controls, no line breaks, no halves of characters."""
    if text.isprintable():
        return True
    return not any(unicodedata.category(one) in {"Cc", "Cs", "Zl", "Zp"} for one in text)

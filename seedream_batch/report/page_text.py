"""Texts of job files and of the service, fit for a page."""

from __future__ import annotations

import json
import re

from seedream_batch.model.document import Json

LONGEST_LABEL = 80
"""Characters of a label; the whole value stands in the detail view."""

# Line breaks and tabs stay. Joiners stay too, since scripts and emoji need them; what turns the direction of all that
# follows does not.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """The text without control characters."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def label(value: Json) -> str:
    """A value of an axis in a few words: its `id` where it is a mapping that has one."""
    if isinstance(value, dict):
        value = value.get("id", next(iter(value.values()), ""))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(clean(text).split())
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def script(function: str, *values: Json) -> bytes:
    """A script that hands values over to the page: `seedream.FUNCTION(VALUE, ...)`, in ASCII, safe wherever it stands.

    A page that was opened from the disk may load scripts and may not read files.
    """
    arguments = ",".join(json.dumps(value, ensure_ascii=True, separators=(",", ":")) for value in values)
    return f"seedream.{function}({arguments.replace('<', chr(92) + 'u003c')});\n".encode("ascii")

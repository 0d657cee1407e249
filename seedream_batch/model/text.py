"""What counts as the same text, whatever file and format it comes from.

Line breaks are line feeds. Characters that nobody sees are left out, but for the joiners that scripts and emoji need.
White space around a value does not count. Control characters are refused. Everything else stays as it was written,
full-width forms and Unicode forms included: a prompt is sent as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import is_
from typing import Final

from seedream_batch.model.document import Json

CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""Characters that no text may have: nobody knows what they were meant to do."""

_BREAK: Final = re.compile("\r\n|[\r\x85\u2028\u2029]")
_INVISIBLE: Final = re.compile(
    "[\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0001]"
    # Tags are a part of some flags, and are left alone there.
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0020-\U000e007f]+"
)
_JOINERS_ALONE: Final = re.compile("[\\s\u200c\u200d]*\\Z")
_WORD: Final = re.compile(r"\w+")


def with_line_feeds(text: str) -> str:
    """The text of a file with every line end as a line feed, however it was checked out."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def plain_text(text: str) -> str:
    """The text with line feeds, and without characters that nobody sees."""
    if text.isascii() and "\x7f" not in text:
        return with_line_feeds(text)
    return _INVISIBLE.sub("", _BREAK.sub("\n", text))


UNPRINTABLE_IN_YAML: Final = re.compile("[\x7f-\x84\x86-\x9f\ufffe\uffff]")
"""What of that YAML itself does not take."""


def plain_value(text: str) -> str:
    """`plain_text` without white space around it; a text of nothing but joiners is empty."""
    if text.isprintable() and text.isascii():
        return text.strip()
    text = plain_text(text).strip()
    return "" if _JOINERS_ALONE.match(text) else text


def normal(value: Json) -> Json:
    """A value with every text in it as `plain_value`; the same object where that changes nothing."""
    if isinstance(value, str):
        text = plain_value(value)
        return value if text == value else text
    if isinstance(value, dict):
        for key, item in value.items():
            if normal(item) is not item or plain_value(key) != key:
                return _normal_fields(value)
    elif isinstance(value, list):
        items = list(map(normal, value))
        return value if all(map(is_, items, value)) else items
    return value


def _normal_fields(value: dict[str, Json]) -> dict[str, Json]:
    fields = {plain_value(key): normal(item) for key, item in value.items()}
    # Of two keys that become one, both stay: a template that reads one of them is told what there is.
    return fields if len(fields) == len(value) else {key: normal(item) for key, item in value.items()}


def is_empty(value: Json) -> bool:
    """Whether a value of a table says nothing: no text, or only fields without any."""
    if isinstance(value, dict):
        return all(map(is_empty, value.values()))
    if isinstance(value, list):
        return all(map(is_empty, value))
    return value is None or value == ""


def control_in(value: Json) -> str:
    """The first control character in any text of a value; empty where there is none."""
    if isinstance(value, str):
        found = None if value.isprintable() else CONTROL.search(value)
        return found.group() if found else ""
    if isinstance(value, dict):
        return control_in([*value, *value.values()])
    if isinstance(value, list):
        return next(filter(None, map(control_in, value)), "")
    return ""


def words(text: str) -> Sequence[str]:
    """The words of a text, to tell whether two texts differ in more than the white space between them."""
    return _WORD.findall(plain_text(text))

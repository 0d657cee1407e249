"""Text normalisation, the same for every file and format.

Line breaks become line feeds. Invisible characters are dropped, except the joiners that scripts and emoji need. White
space around a value is ignored. Control characters are refused. Everything else stays as written, including full-width
and Unicode normalisation forms: a prompt is sent as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import is_
from typing import Final

from seedream_batch.model.document import Json

CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""Control characters that are refused in any text, because their intent is unknown."""

_BREAK: Final = re.compile("\r\n|[\r\x85\u2028\u2029]")
_INVISIBLE: Final = re.compile(
    "[\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0001]"
    # Tag characters are part of some flags and are kept there.
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0020-\U000e007f]+"
)
_JOINERS_ALONE: Final = re.compile("[\\s\u200c\u200d]*\\Z")
_WORD: Final = re.compile(r"\w+")


LONGEST: Final = 60
"""Most characters of a value in a message."""

_ESCAPES: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def encodable(text: str) -> bool:
    """Return whether UTF-8 can encode the text: it has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escaped(text: str) -> str:
    """Shorten a text to `LONGEST` characters and escape everything that is not printable."""
    short = text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
    return "".join(map(_escape, short))


def _escape(character: str) -> str:
    if character in _ESCAPES or character.isprintable():
        return _ESCAPES.get(character, character)
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def with_line_feeds(text: str) -> str:
    """Return the text with all line ends as line feeds, however the file was checked out."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def plain_text(text: str) -> str:
    """Return the text with line feeds and without invisible characters."""
    if text.isascii() and "\x7f" not in text:
        return with_line_feeds(text)
    return _INVISIBLE.sub("", _BREAK.sub("\n", text))


UNPRINTABLE_IN_YAML: Final = re.compile("[\x7f-\x84\x86-\x9f\ufffe\uffff]")
"""Invisible characters that YAML itself refuses."""


def plain_value(text: str) -> str:
    """Return `plain_text` without surrounding white space; a text that consists of joiners becomes empty."""
    if text.isprintable() and text.isascii():
        return text.strip()
    text = plain_text(text).strip()
    return "" if _JOINERS_ALONE.match(text) else text


def normal(value: Json) -> Json:
    """Apply `plain_value` to every text in a value; return the same object if nothing changes."""
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
    # Keys that would become equal are kept as they are, so that the error about an unknown field lists both.
    return fields if len(fields) == len(value) else {key: normal(item) for key, item in value.items()}


def is_empty(value: Json) -> bool:
    """Return whether a table value is empty: no text, or only empty fields."""
    if isinstance(value, dict):
        return all(map(is_empty, value.values()))
    if isinstance(value, list):
        return all(map(is_empty, value))
    return value is None or value == ""


def control_in(value: Json) -> str:
    """Return the first control character in any text of a value; empty if there is none."""
    if isinstance(value, str):
        match = None if value.isprintable() else CONTROL.search(value)
        return match.group() if match else ""
    if isinstance(value, dict):
        return control_in([*value, *value.values()])
    if isinstance(value, list):
        return next(filter(None, map(control_in, value)), "")
    return ""


def words(text: str) -> Sequence[str]:
    """Return the words of a text, to compare texts regardless of the white space between words."""
    return _WORD.findall(plain_text(text))

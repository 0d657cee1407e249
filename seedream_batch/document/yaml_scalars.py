"""The core schema of YAML 1.2: which plain scalar is which value.

PyYAML itself follows YAML 1.1, where 16:9 is 969 and `no` is False; in 1.2 both are text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Final

from seedream_batch.document.decoding import MAX_DIGITS
from seedream_batch.model.document import Json
from seedream_batch.model.text import escaped

WORDS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
NUMERIC_START: Final = frozenset("-+.0123456789")

_INT: Final = re.compile(r"[-+]?[0-9]+\Z", re.ASCII)
_OCTAL: Final = re.compile(r"0o[0-7]+\Z")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z", re.ASCII)
_NOT_FINITE: Final = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")

_PREFIX: Final = "tag:yaml.org,2002:"


class BadScalar(Exception):
    """Raised for a scalar without a valid value; `hint` says how to fix it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def number(text: str) -> Json:
    """Return the number that `text` is, or `text` itself if it is none (16:9, 2024-01-01, 1_000)."""
    if _INT.match(text):
        return integer(text, 10)
    if _FLOAT.match(text):
        return finite(text)
    if _OCTAL.match(text):
        return integer(text[2:], 8)
    if _HEX.match(text):
        return integer(text[2:], 16)
    if _NOT_FINITE.match(text):
        raise BadScalar(f"{text} is not a valid JSON number", "quote it if it is text")
    return text


def integer(digits: str, base: int = 10) -> int:
    """Parse an integer. Raises `BadScalar` if it is too long."""
    if len(digits) > MAX_DIGITS:
        raise BadScalar(f"a whole number of {len(digits)} digits is too long", "quote it if it is text")
    return int(digits, base)


def finite(text: str) -> float:
    """Parse a decimal number. Raises `BadScalar` if it exceeds a double."""
    value = float(text)
    if not math.isfinite(value):
        shown = text if len(text) <= 40 else text[:40] + "..."
        raise BadScalar(f"{shown} is not a valid JSON number", "it is too large")
    return value


def _as_int(text: str) -> int:
    value = number(text) if text[:1] in NUMERIC_START and text else text
    if isinstance(value, int):
        return value
    raise BadScalar(f'"{escaped(text)}" is not a whole number (!!int)')


def _as_float(text: str) -> float:
    value = number(text) if text[:1] in NUMERIC_START and text else text
    if isinstance(value, float):
        return value
    if isinstance(value, int):
        return finite(str(value))
    raise BadScalar(f'"{escaped(text)}" is not a number (!!float)')


def _as_bool(text: str) -> bool:
    value = WORDS.get(text)
    if value is None:
        raise BadScalar(f'"{escaped(text)}" is not a boolean (!!bool)', "write true or false")
    return value


def _as_null(text: str) -> None:
    if text not in WORDS or WORDS[text] is not None:
        raise BadScalar(f'"{escaped(text)}" is not null (!!null)')


_TAGGED: Final[Mapping[str, Callable[[str], Json]]] = {
    f"{_PREFIX}str": str,
    f"{_PREFIX}int": _as_int,
    f"{_PREFIX}float": _as_float,
    f"{_PREFIX}bool": _as_bool,
    f"{_PREFIX}null": _as_null,
}


def tagged(tag: str, text: str) -> Json:
    """Return the value of a scalar with an explicit tag. Raises `BadScalar` if the two do not fit."""
    convert = _TAGGED.get(tag)
    if convert is None:
        raise unknown_tag(tag, "a scalar")
    return convert(text)


def check_collection_tag(tag: str, kind: str) -> None:
    """Raise `BadScalar` unless `tag` is that of `kind`, `map` or `seq`."""
    if tag != _PREFIX + kind:
        raise unknown_tag(tag, "a mapping" if kind == "map" else "a list")


def unknown_tag(tag: str, what: str) -> BadScalar:
    """Return the error for a tag that is not supported."""
    written = "!!" + tag.removeprefix(_PREFIX) if tag.startswith(_PREFIX) else tag
    return BadScalar(
        f"the tag {written[:60]} does not match {what}",
        "remove it; only !!str, !!int, !!float, !!bool, !!null, !!map and !!seq are supported",
    )

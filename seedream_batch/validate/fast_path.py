r"""A fast reader of the schemas that can only confirm that a value is valid.

`jsonschema` decides and explains, but takes some hundred microseconds for a request; `jsonschema-rs` takes two. What
the fast one accepts is taken as valid; everything else goes to the other one. So the fast one must never accept what
the other refuses. Where the two interpret the standard differently, the fast one is not asked, or its schema is made
explicit:

- values that are not plain JSON (tuples, NaN, keys that are not text, integers beyond 2**53) are not passed to it;
- `\s` and `\S` become the characters that they match in Python, which differ from those of ECMAScript.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

from seedream_batch.model.document import Json
from seedream_batch.validate.schemas import schema

_LARGEST: Final = 2**53
_SPACE: Final = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_ESCAPE: Final = re.compile(r"\\(.)|(\[\^?)|(\])", re.DOTALL)


@cache
def accepts(name: str) -> Callable[[Json], bool]:
    """Return a predicate that is true only for values valid under the schema `name`; false proves nothing."""
    import jsonschema_rs  # noqa: PLC0415 - needed late or never

    checker = jsonschema_rs.Draft202012Validator(_plainer(schema(name)))

    def accepted(value: Json) -> bool:
        try:
            valid: bool = simple(value) and checker.is_valid(value)
        except (ValueError, TypeError, RecursionError):
            return False  # a lone surrogate, for example
        return valid

    return accepted


def simple(value: Json) -> bool:
    """Return whether the value only has types that every JSON reader interprets the same way."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(-_LARGEST <= value <= _LARGEST)
    if kind is float:
        return math.isfinite(value) and abs(value) <= _LARGEST
    if kind is list:
        return all(map(simple, value))
    return kind is dict and all(type(key) is str for key in value) and all(map(simple, value.values()))


def _plainer(part: Json) -> Json:
    if isinstance(part, Mapping):
        return {
            key: spelt_out(item) if key == "pattern" and isinstance(item, str) else _plainer(item)
            for key, item in part.items()
        }
    return [_plainer(item) for item in part] if isinstance(part, list) else part


def spelt_out(pattern: str) -> str:
    r"""Expand `\s` and `\S` in a pattern to what they match in Python. Raises `ValueError` for `\S` in a class."""
    inside = False

    def plainer(match: re.Match[str]) -> str:
        nonlocal inside
        letter, opening, closing = match.groups()
        if opening and not inside:
            inside = True
        elif closing:
            inside = False
        elif letter == "s":
            return _SPACE if inside else f"[{_SPACE}]"
        elif letter == "S":
            if inside:
                raise ValueError(f"cannot spell out {pattern!r}")
            return f"[^{_SPACE}]"
        return match.group()

    return _ESCAPE.sub(plainer, pattern)

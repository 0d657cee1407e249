r"""A second, fast reader of the schemas, which may only say yes.

`jsonschema` decides and explains; it takes some hundred microseconds for a request. `jsonschema-rs` takes two. What
the fast one accepts is taken as right; all else goes to the other. So the two must never differ in this direction,
and where they read the standard differently the fast one is not asked, or its schema is put into plainer words:

- values that are not simply JSON (tuples, NaN, keys that are no text, numbers beyond a double's whole ones) stay away;
- `\s` and `\S` become lists of the characters that they mean in Python, which are others than in ECMAScript.
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
    """A test that is true only for values that the schema called `name` takes; false says nothing."""
    import jsonschema_rs  # noqa: PLC0415 - needed late or never

    checker = jsonschema_rs.Draft202012Validator(_plainer(schema(name)))

    def accepted(value: Json) -> bool:
        try:
            valid: bool = simple(value) and checker.is_valid(value)
        except (ValueError, TypeError, RecursionError):
            return False  # half a character, for one
        return valid

    return accepted


def simple(value: Json) -> bool:
    """Whether the value is of the types that every reader of JSON reads alike."""
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
    r"""The pattern with the characters that `\s` and `\S` mean in Python. Raises `ValueError` for `\S` in a class."""
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

r"""The schema files: where they are, and validators made from them: one explains, and a fast one only confirms.

`jsonschema` decides and explains, but takes some hundred microseconds for a request; `jsonschema-rs` takes two. What
the fast one accepts is taken as valid; everything else goes to the other one. So the fast one must never accept what
the other refuses. Where the two interpret the standard differently, the fast one is not asked, or its schema is made
explicit:

- values that are not plain JSON (tuples, NaN, keys that are not text, integers beyond 2**53) are not passed to it;
- `\s` and `\S` become the characters that they match in Python, which differ from those of ECMAScript.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seedream_batch.model.document import Json

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

_FILES = {
    "job": "job.schema.json",
    "request": "seedream-4.5.request.schema.json",
    "summary": "summary.schema.json",
    "status": "status.schema.json",
}


def schema_names() -> tuple[str, ...]:
    """Return the names that `schema_text` accepts."""
    return tuple(_FILES)


def schema_text(name: str) -> str:
    """Return the text of the schema called `name`, one of `schema_names`. Raises `KeyError` for another name."""
    package = Path(__file__).parents[1]
    installed, source = package / "schemas" / _FILES[name], package.parent / "schemas" / _FILES[name]
    return (installed if installed.is_file() else source).read_text(encoding="utf-8")


@cache
def schema(name: str) -> Mapping[str, Json]:
    """Return the parsed schema called `name`, cached; do not modify it."""
    parsed: Mapping[str, Json] = json.loads(schema_text(name))
    return parsed


@cache
def validator(name: str) -> Validator:
    """Return the validator of the schema called `name`, cached."""
    return validator_of(schema(name))


def validator_of(parsed: Mapping[str, Json]) -> Validator:
    """Create a validator for a parsed schema of draft 2020-12.

    It differs from the library's own in two points, where it follows JSON Schema more closely: `$` in a pattern matches
    only at the very end, never before a final newline, and NaN and the infinities are not numbers.
    """
    return _validator_class()(parsed)


def text_test(parsed: Mapping[str, Json]) -> Callable[[Json], bool] | None:
    """Return a fast predicate for a schema of a text with a pattern and nothing else; None for any other schema.

    It gives the same results as `validator_of` in a hundredth of the time.
    """
    rules = {key: rule for key, rule in parsed.items() if key not in _NOTES and not key.startswith("x-")}
    if rules.keys() != {"type", "pattern"} or rules["type"] != "string":
        return None
    search = _compiled(rules["pattern"]).search
    return lambda value: isinstance(value, str) and search(value) is not None


_NOTES = frozenset({"title", "description", "$comment", "examples", "default"})


@cache
def _validator_class() -> type[Validator]:
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - slow to import, needed late or never
    from jsonschema.validators import extend  # noqa: PLC0415

    types = Draft202012Validator.TYPE_CHECKER.redefine("number", _is_number)
    extended: type[Validator] = extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"pattern": _pattern}, type_checker=types
    )
    return extended


def _is_number(_checker: object, value: Json) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _pattern(checker: Validator, pattern: str, value: Json, _schema: Mapping[str, Json]) -> Iterator[ValidationError]:
    from jsonschema.exceptions import ValidationError  # noqa: PLC0415

    if checker.is_type(value, "string") and not _compiled(pattern).search(value):
        yield ValidationError("does not match the pattern")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace("$", r"\Z"))


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

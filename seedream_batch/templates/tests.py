"""The tests of templates, for `x is ...` and for `select`: those of Jinja, except where it would guess or format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from jinja2.tests import TESTS as JINJA_TESTS

from seedream_batch.templates.limits import number, sequence

Function = Callable[..., Any]

_JINJA: Final = cast("Mapping[str, Function]", JINJA_TESTS)


def _of_numbers(name: str) -> Function:
    """Take numbers only: `'%999d' is odd` would format in Jinja."""
    return lambda *values: _JINJA[name](*map(number, values))


_SAME: Final = (
    "!= < <= == > >= boolean defined eq equalto false float ge greaterthan gt integer iterable le lessthan lt mapping"
    " ne none number sequence string true undefined"
)
TESTS: Final[Mapping[str, Function]] = {
    **{name: _JINJA[name] for name in _SAME.split()},
    **{name: _of_numbers(name) for name in ("divisibleby", "even", "odd")},
    "in": lambda value, items: value in sequence(items),
    "lower": lambda value: isinstance(value, str) and value.islower(),
    "upper": lambda value: isinstance(value, str) and value.isupper(),
}

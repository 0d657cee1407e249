"""The tests that templates have, for `x is ...` and for `select`. Each takes the context first, like a filter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from jinja2 import Undefined

from seedream_batch.templates.limits import number, sequence

Function = Callable[..., Any]


def _is(check: Callable[[Any], bool]) -> Function:
    return lambda _, value: check(value)


def _compare(compare: Callable[[Any, Any], bool]) -> Function:
    return lambda _, value, other: compare(value, other)


def _whole_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_COMPARISONS: Final[Mapping[tuple[str, ...], Function]] = {
    ("eq", "equalto", "=="): _compare(lambda left, right: bool(left == right)),
    ("ne", "!="): _compare(lambda left, right: bool(left != right)),
    ("lt", "lessthan", "<"): _compare(lambda left, right: bool(left < right)),
    ("le", "<="): _compare(lambda left, right: bool(left <= right)),
    ("gt", "greaterthan", ">"): _compare(lambda left, right: bool(left > right)),
    ("ge", ">="): _compare(lambda left, right: bool(left >= right)),
    ("in",): _compare(lambda left, right: left in sequence(right)),
}

TESTS: Final[Mapping[str, Function]] = {
    **{name: function for names, function in _COMPARISONS.items() for name in names},
    "boolean": _is(lambda value: isinstance(value, bool)),
    "defined": _is(lambda value: not isinstance(value, Undefined)),
    "divisibleby": _compare(lambda value, divisor: bool(number(value) % number(divisor) == 0)),
    "even": _is(lambda value: bool(number(value) % 2 == 0)),
    "false": _is(lambda value: value is False),
    "float": _is(lambda value: isinstance(value, float)),
    "integer": _is(_whole_number),
    "iterable": _is(lambda value: isinstance(value, (str, list, tuple, dict, range))),
    "lower": _is(lambda value: isinstance(value, str) and value.islower()),
    "mapping": _is(lambda value: isinstance(value, Mapping)),
    "none": _is(lambda value: value is None),
    "number": _is(lambda value: isinstance(value, (int, float))),
    "odd": _is(lambda value: bool(number(value) % 2 == 1)),
    "sequence": _is(lambda value: isinstance(value, (str, list, tuple, dict, range))),
    "string": _is(lambda value: isinstance(value, str)),
    "true": _is(lambda value: value is True),
    "undefined": _is(lambda value: isinstance(value, Undefined)),
    "upper": _is(lambda value: isinstance(value, str) and value.isupper()),
}

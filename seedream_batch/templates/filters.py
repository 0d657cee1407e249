"""The filters and tests of templates: those of Jinja that are harmless, bounded and the same on every run.

Each is called by `guarded`, which pays for what it handles and checks the type of the value. Where a filter of Jinja
could make much out of little, or guess the meaning of a mistake, a function here checks its arguments first or
replaces it. What is an iterator in Jinja is a list here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from jinja2 import Undefined, pass_context
from jinja2.exceptions import FilterArgumentError
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.runtime import Context
from jinja2.tests import TESTS as JINJA_TESTS

from seedream_batch.templates.limits import (
    Budget,
    TemplateError,
    binary,
    joined,
    kind_of,
    number,
    percent,
    replaced,
    sequence,
    to_text,
    whole,
)

Function = Callable[..., Any]

_JINJA: Final = cast("Mapping[str, Function]", JINJA_FILTERS)


class Group(NamedTuple):
    """One group that the filter `groupby` gives."""

    grouper: Any
    list: list[Any]


def budget_of(context: Context) -> Budget:
    """Return the budget of the rendering that this context belongs to."""
    budget: Budget = context.budget  # type: ignore[attr-defined]  # every context of ours has one
    return budget


class Scope:
    """The context of a filter, which Jinja's filters also take for an environment or an evaluation context.

    Lookups of attributes are paid for; if `strict`, they raise for what is not there.
    """

    autoescape = is_async = False

    def __init__(self, context: Context, *, strict: bool) -> None:
        self._context = context
        self._environment: Any = context.environment
        self.budget = budget_of(context)
        self.strict = strict
        self.environment = self
        self.undefined = self._environment.undefined
        self.policies = self._environment.policies

    def getitem(self, item: Any, key: Any) -> Any:
        self.budget.spend(1)
        found = self._environment.getitem(item, key)
        if self.strict and isinstance(found, Undefined):
            str(found)  # raises
        return found

    def call_filter(self, name: Any, value: Any, args: Sequence[Any], kwargs: Mapping[str, Any], context: Scope) -> Any:  # noqa: ARG002 - Jinja's signature
        return self._environment.filters[name](self._context, value, *args, **kwargs)

    def call_test(self, name: Any, value: Any, args: Sequence[Any], kwargs: Mapping[str, Any], context: Scope) -> Any:  # noqa: ARG002 - Jinja's signature
        return self._environment.tests[name](self._context, value, *args, **kwargs)


def guarded(name: str, function: Function, what: str = "filter") -> Function:
    """Wrap a filter or test for Jinja: its arguments are defined and paid for, its errors name it."""
    takes_undefined = name in {"default", "d", "defined", "undefined"}
    takes_scope = hasattr(function, "jinja_pass_arg")
    convert = _CONVERSIONS.get(name) if what == "filter" else None
    strict = name not in {"map", "selectattr", "rejectattr"}

    @pass_context
    def run(context: Context, /, *args: Any, **kwargs: Any) -> Any:
        budget = budget_of(context)
        budget.spend(1)
        for value in (*args, *kwargs.values()):
            if isinstance(value, Undefined):
                if not takes_undefined:
                    str(value)  # raises
            else:
                budget.handle(value)
        if convert:
            args = (convert(args[0], budget), *args[1:])
        if takes_scope:
            args = (Scope(context, strict=strict), *args)
        try:
            result = function(*args, **kwargs)
            if isinstance(result, Iterator):
                result = list(result)
        except (TypeError, AssertionError, FilterArgumentError) as error:
            message = re.sub(r"^[\w.<>]+\(\) ", "", str(error))[:300]
            raise TemplateError(f"the {what} `{name}`: {message}") from None
        return budget.made(result) if isinstance(result, str) else result

    return run


def _mapping(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise TemplateError(f"expected a mapping, got {kind_of(value)}")
    return value


# texts


@pass_context
def _center(scope: Scope, text: str, width: int = 80) -> str:
    scope.budget.fits(whole(width, "the width"))
    return text.center(width)


@pass_context
def _replace(scope: Scope, text: str, old: Any, new: Any, count: int | None = None) -> str:
    old, new = (to_text(part, scope.budget) for part in (old, new))
    return replaced(text, old, new, -1 if count is None else count, scope.budget)


@pass_context
def _indent(scope: Scope, text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:  # noqa: FBT001, FBT002 - Jinja's signature
    if not isinstance(width, str):
        scope.budget.fits(whole(width, "the width"))
        width = " " * width
    lines = text.split("\n")
    scope.budget.fits(len(text) + len(lines) * len(width))
    indented = [width + line if line or blank else line for line in lines[1:]]
    return "\n".join([width + lines[0] if first else lines[0], *indented])


@pass_context
def _format(scope: Scope, text: str, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise FilterArgumentError("use positional or named values, not both")
    return percent(text, kwargs or args, scope.budget)


@pass_context
def _join(scope: Scope, items: Any, d: Any = "", attribute: Any = None) -> str:
    parts = items if attribute is None else _JINJA["map"](scope, items, attribute=attribute)
    return joined(to_text(d, scope.budget), parts, scope.budget)


# numbers


def _int(value: Any, default: Any = 0, base: int = 10) -> Any:
    try:
        if isinstance(value, str):
            return int(value, base) if len(value) <= 1000 else default
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _float(value: Any, default: Any = 0.0) -> Any:
    try:
        converted = float(value)
    except (TypeError, ValueError, OverflowError):
        return default
    return converted if math.isfinite(converted) else default


def _round(value: Any, precision: int = 0, method: str = "common") -> Any:
    if abs(whole(precision, "the precision")) > 15:
        raise TemplateError("the precision must be from -15 to 15")
    return _JINJA["round"](value, precision, method)


@pass_context
def _sum(scope: Scope, items: Any, attribute: Any = None, start: Any = 0) -> Any:
    # `start` as a list would add up lists, each time with a copy of all before.
    return binary("+", _JINJA["sum"](scope, items, attribute, number(start)), 0, scope.budget)


# lists


@pass_context
def _sort(scope: Scope, items: Any, *args: Any, **kwargs: Any) -> Any:
    scope.budget.spend(len(items))
    return _JINJA["sort"](scope, items, *args, **kwargs)


@pass_context
def _groupby(scope: Scope, items: Any, attribute: Any, default: Any = None, case_sensitive: bool = True) -> list[Group]:  # noqa: FBT001, FBT002 - Jinja's signature
    scope.strict = default is None
    return [Group(*group) for group in _JINJA["groupby"](scope, items, attribute, default, case_sensitive)]


@pass_context
def _batch(scope: Scope, items: Any, linecount: int, fill_with: Any = None) -> Any:
    if whole(linecount, "the size") < 1:
        raise TemplateError("the size must be at least 1")
    scope.budget.spend(len(items) // linecount + (0 if fill_with is None else -len(items) % linecount))
    return _JINJA["batch"](items, linecount, fill_with)


@pass_context
def _slice(scope: Scope, items: Any, slices: int, fill_with: Any = None) -> Any:
    if whole(slices, "the number of slices") < 1:
        raise TemplateError("the number of slices must be at least 1")
    scope.budget.spend(slices)
    # Jinja also adds the filling to slices of the same length.
    return _JINJA["slice"](scope, items, slices, fill_with if len(items) % slices else None)


def _check_known(what: str, name: Any, known: Mapping[str, Function]) -> None:
    # Jinja looks the name up for the first item, so it would not notice the mistake in an empty list.
    if not isinstance(name, str) or name not in known:
        raise TemplateError(f"unknown {what} {str(name)[:60]!r}")


@pass_context
def _map(scope: Scope, items: Any, *args: Any, **kwargs: Any) -> Any:
    if args:
        _check_known("filter", args[0], FILTERS)
    elif "attribute" not in kwargs:
        raise TypeError("expected the name of a filter or `attribute=`")
    return _JINJA["map"](scope, items, *args, **kwargs)


def _selecting(name: str, *, by_attribute: bool = False) -> Function:
    @pass_context
    def select(scope: Scope, items: Any, *args: Any) -> Any:
        if by_attribute and not args:
            raise TypeError("the name of the attribute is missing")
        for test in args[by_attribute : by_attribute + 1]:
            _check_known("test", test, TESTS)
        return _JINJA[name](scope, items, *args)

    return select


_TEXTS: Final = "capitalize center format indent lower replace string title trim truncate upper wordcount"
_LISTS: Final = (
    "batch count first groupby join last length list map max min reject rejectattr reverse select selectattr slice sort"
    " sum unique"
)
_CONVERSIONS: Final[Mapping[str, Callable[[Any, Budget], Any]]] = {
    **dict.fromkeys(_TEXTS.split(), to_text),
    **dict.fromkeys(_LISTS.split(), lambda value, _: sequence(value)),
    **dict.fromkeys(("dictsort", "items"), lambda value, _: _mapping(value)),
    **dict.fromkeys(("abs", "round"), lambda value, _: number(value)),
}
FILTERS: Final[Mapping[str, Function]] = {
    **{name: _JINJA[name] for name in (*_CONVERSIONS, "d", "default")},
    "batch": _batch,
    "center": _center,
    "float": _float,
    "format": _format,
    "groupby": _groupby,
    "indent": _indent,
    "int": _int,
    "join": _join,
    "map": _map,
    "reject": _selecting("reject"),
    "rejectattr": _selecting("rejectattr", by_attribute=True),
    "replace": _replace,
    "round": _round,
    "select": _selecting("select"),
    "selectattr": _selecting("selectattr", by_attribute=True),
    "slice": _slice,
    "sort": _sort,
    "sum": _sum,
}


_JINJA_TESTS: Final = cast("Mapping[str, Function]", JINJA_TESTS)


def _of_numbers(name: str) -> Function:
    """Take numbers only: `'%999d' is odd` would format in Jinja."""
    return lambda *values: _JINJA_TESTS[name](*map(number, values))


_SAME: Final = (
    "!= < <= == > >= boolean defined eq equalto false float ge greaterthan gt integer iterable le lessthan lt mapping"
    " ne none number sequence string true undefined"
)
TESTS: Final[Mapping[str, Function]] = {
    **{name: _JINJA_TESTS[name] for name in _SAME.split()},
    **{name: _of_numbers(name) for name in ("divisibleby", "even", "odd")},
    "in": lambda value, items: value in sequence(items),
    "lower": lambda value: isinstance(value, str) and value.islower(),
    "upper": lambda value: isinstance(value, str) and value.isupper(),
}

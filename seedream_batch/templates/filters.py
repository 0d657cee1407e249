"""The filters that templates have: harmless, bounded, and the same on every run.

They follow Jinja's own, with these differences: what gives a generator there gives a list here, and nothing may
make a text longer than the budget allows. Each takes the context first, for its budget.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from jinja2 import Undefined, pass_context
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.runtime import Context

from seedream_batch.templates.limits import (
    Budget,
    TemplateError,
    kind_of,
    number,
    percent,
    sequence,
    to_text,
    weigh,
    whole,
)
from seedream_batch.templates.tests import TESTS

Function = Callable[..., Any]


class Group(NamedTuple):
    """One group that the filter `groupby` gives."""

    grouper: Any
    list: list[Any]


def budget_of(context: Context) -> Budget:
    """The budget of the rendering that this context belongs to."""
    budget: Budget = context.budget  # type: ignore[attr-defined]  # every context of ours has one
    return budget


def guarded(name: str, function: Function, what: str = "filter") -> Function:
    """The function as Jinja calls it: its arguments defined and paid for, its mistakes told under its own name."""
    takes_undefined = name in {"default", "d", "defined", "undefined"}

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
        try:
            result = function(context, *args, **kwargs)
        except TypeError as error:
            message = re.sub(r"^[\w.<>]+\(\) ", "", str(error))
            raise TemplateError(f"the {what} `{name}`: {message}") from None
        return budget.made(result) if isinstance(result, str) else result

    return run


def _text(context: Context, value: Any) -> str:
    return to_text(value, budget_of(context))


def _getter(context: Context, attribute: Any) -> Function:
    """The function that gets `a.b.0` out of an item; None stands for the item itself."""
    if attribute is None:
        return lambda item: item
    steps = [int(step) if step.isdecimal() else step for step in str(attribute).split(".")]
    budget = budget_of(context)

    def get(item: Any) -> Any:
        budget.spend(len(steps))
        for step in steps:
            item = context.environment.getitem(item, step)
        return item

    return get


def _defined_getter(context: Context, attribute: Any, *, case_sensitive: bool = True) -> Function:
    get = _getter(context, attribute)

    def key(item: Any) -> Any:
        value = get(item)
        if isinstance(value, Undefined):
            str(value)  # raises
        return value.lower() if isinstance(value, str) and not case_sensitive else value

    return key


# texts


def _of_text(change: Callable[[str], Any]) -> Function:
    return lambda context, value: change(_text(context, value))


def _trim(context: Context, value: Any, chars: str | None = None) -> str:
    return _text(context, value).strip(chars)


def _center(context: Context, value: Any, width: int = 80) -> str:
    budget_of(context).fits(whole(width, "the width"))
    return _text(context, value).center(width)


def _replace(context: Context, value: Any, old: str, new: str, count: int | None = None) -> str:
    text, old, new = (_text(context, part) for part in (value, old, new))
    times = text.count(old) if count is None else min(text.count(old), whole(count, "the count"))
    budget_of(context).fits(len(text) + max(0, times) * (len(new) - len(old)))
    return text.replace(old, new, -1 if count is None else count)


def _indent(context: Context, value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:  # noqa: FBT001, FBT002 - Jinja's signature
    text = _text(context, value)
    if not isinstance(width, str):
        budget_of(context).fits(whole(width, "the width"))
        width = " " * width
    lines = text.split("\n")
    budget_of(context).fits(len(text) + len(lines) * len(width))
    indented = [width + line if line or blank else line for line in lines[1:]]
    return "\n".join([width + lines[0] if first else lines[0], *indented])


def _truncate(
    context: Context,
    value: Any,
    length: int = 255,
    killwords: bool = False,  # noqa: FBT001, FBT002 - Jinja's signature
    end: str = "...",
    leeway: int = 5,
) -> str:
    text, end = _text(context, value), _text(context, end)
    if whole(length, "the length") < len(end) or whole(leeway, "the leeway") < 0:
        raise TemplateError("the length must be at least that of the end, the leeway at least 0")
    if len(text) <= length + leeway:
        return text
    cut = text[: length - len(end)]
    return (cut if killwords else cut.rsplit(" ", 1)[0]) + end


def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise TemplateError("the filter `format` takes values in order or by name, not both")
    return percent(_text(context, value), kwargs or args, budget_of(context))


def _join(context: Context, value: Any, d: Any = "", attribute: Any = None) -> str:
    budget, separator, get = budget_of(context), _text(context, d), _getter(context, attribute)
    pieces: list[str] = []
    length = 0
    for item in sequence(value):
        pieces.append(to_text(get(item), budget))
        length += len(pieces[-1]) + (len(separator) if len(pieces) > 1 else 0)
        budget.fits(length)
    return separator.join(pieces)


# numbers


def _int(_: Context, value: Any, default: Any = 0, base: int = 10) -> Any:
    try:
        if isinstance(value, str):
            return int(value[:1000], base) if len(value) <= 1000 else default
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _float(_: Context, value: Any, default: Any = 0.0) -> Any:
    try:
        converted = float(value)
    except (TypeError, ValueError, OverflowError):
        return default
    return converted if math.isfinite(converted) else default


def _round(_: Context, value: Any, precision: int = 0, method: str = "common") -> Any:
    rounded = number(value)
    if abs(whole(precision, "the precision")) > 15:
        raise TemplateError("the precision must be from -15 to 15")
    if method == "common":
        return round(rounded, precision)
    if method not in {"ceil", "floor"}:
        raise TemplateError("the method must be common, ceil or floor")
    scale = 10.0**precision
    return (math.ceil if method == "ceil" else math.floor)(rounded * scale) / scale


def _sum(context: Context, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    get, total = _getter(context, attribute), number(start)
    for item in sequence(value):
        total = context.environment.call_binop(context, "+", total, number(get(item)))  # type: ignore[attr-defined]
    return total


# lists and mappings


def _default(_: Context, value: Any, default_value: Any = "", boolean: bool = False) -> Any:  # noqa: FBT001, FBT002 - Jinja's signature
    return default_value if isinstance(value, Undefined) or (boolean and not value) else value


def _first(context: Context, value: Any) -> Any:
    for item in sequence(value):
        return item
    return context.environment.undefined("there is no first item: the list is empty")


def _last(context: Context, value: Any) -> Any:
    for item in reversed(sequence(value)):
        return item
    return context.environment.undefined("there is no last item: the list is empty")


def _reverse(_: Context, value: Any) -> Any:
    return value[::-1] if isinstance(value, str) else list(reversed(sequence(value)))


def _sort(
    context: Context,
    value: Any,
    reverse: bool = False,  # noqa: FBT001, FBT002 - Jinja's signature
    case_sensitive: bool = False,  # noqa: FBT001, FBT002
    attribute: Any = None,
) -> list[Any]:
    gets = [
        _defined_getter(context, part or None, case_sensitive=case_sensitive)
        for part in ("" if attribute is None else str(attribute)).split(",")
    ]
    items = list(sequence(value))
    budget_of(context).spend(len(items) * len(gets))
    return sorted(items, key=lambda item: [get(item) for get in gets], reverse=reverse)


def _items(_: Context, value: Any) -> list[Any]:
    if not isinstance(value, Mapping):
        raise TemplateError(f"{kind_of(value)} is no mapping")
    return list(value.items())


def _dictsort(
    context: Context,
    value: Any,
    case_sensitive: bool = False,  # noqa: FBT001, FBT002 - Jinja's signature
    by: str = "key",
    reverse: bool = False,  # noqa: FBT001, FBT002
) -> list[Any]:
    if by not in {"key", "value"}:
        raise TemplateError('`dictsort` sorts by "key" or "value"')
    key = _defined_getter(context, "0" if by == "key" else "1", case_sensitive=case_sensitive)
    return sorted(_items(context, value), key=key, reverse=reverse)


def _unique(context: Context, value: Any, case_sensitive: bool = False, attribute: Any = None) -> list[Any]:  # noqa: FBT001, FBT002 - Jinja's signature
    key = _defined_getter(context, attribute, case_sensitive=case_sensitive)
    found: dict[Any, Any] = {}
    for item in sequence(value):
        found.setdefault(key(item), item)
    return list(found.values())


def _extreme(choose: Callable[..., Any]) -> Function:
    def extreme(context: Context, value: Any, case_sensitive: bool = False, attribute: Any = None) -> Any:  # noqa: FBT001, FBT002 - Jinja's signature
        items = list(sequence(value))
        if not items:
            return context.environment.undefined("the list is empty")
        return choose(items, key=_defined_getter(context, attribute, case_sensitive=case_sensitive))

    return extreme


def _groupby(context: Context, value: Any, attribute: Any, default: Any = None) -> list[Group]:
    get = _getter(context, attribute)
    groups: dict[Any, list[Any]] = {}
    for item in sequence(value):
        key = get(item)
        if isinstance(key, Undefined):
            key = default if default is not None else str(key)
        groups.setdefault(key, []).append(item)
    return [Group(key, groups[key]) for key in sorted(groups)]


def _batch(context: Context, value: Any, linecount: int, fill_with: Any = None) -> list[list[Any]]:
    items, size = list(sequence(value)), whole(linecount, "the size")
    if size < 1:
        raise TemplateError("the size must be at least 1")
    budget_of(context).spend(len(items) // size)
    rows = [items[start : start + size] for start in range(0, len(items), size)]
    if rows and fill_with is not None:
        missing = size - len(rows[-1])
        budget_of(context).spend(missing * (1 + weigh(fill_with, budget_of(context).left)))
        rows[-1] += [fill_with] * missing
    return rows


def _slice(context: Context, value: Any, slices: int, fill_with: Any = None) -> list[list[Any]]:
    items, count = list(sequence(value)), whole(slices, "the number of slices")
    if count < 1:
        raise TemplateError("the number of slices must be at least 1")
    budget_of(context).spend(count)
    size, longer = divmod(len(items), count)
    rows, start = [], 0
    for index in range(count):
        end = start + size + (index < longer)
        rows.append(items[start:end] + ([fill_with] if fill_with is not None and longer and index >= longer else []))
        start = end
    return rows


def _named(context: Context, name: Any, known: Mapping[str, Function], what: str) -> Function:
    function = known.get(name) if isinstance(name, str) else None
    if function is None:
        raise TemplateError(f"there is no {what} {str(name)[:60]!r}")
    run = guarded(str(name), function, what)
    return lambda *args, **kwargs: run(context, *args, **kwargs)


def _map(context: Context, value: Any, *args: Any, **kwargs: Any) -> list[Any]:
    if args:
        run = _named(context, args[0], FILTERS, "filter")
        return [run(item, *args[1:], **kwargs) for item in sequence(value)]
    if "attribute" not in kwargs:
        raise TemplateError("`map` takes the name of a filter, or `attribute=`")
    get, default = _getter(context, kwargs.pop("attribute")), kwargs.pop("default", None)
    if kwargs:
        raise TypeError(f"unexpected argument {next(iter(kwargs))!r}")
    found = [get(item) for item in sequence(value)]
    return found if default is None else [default if isinstance(item, Undefined) else item for item in found]


def _select(*, keep: bool, by_attribute: bool) -> Function:
    def select(context: Context, value: Any, *args: Any) -> list[Any]:
        rest = args[1:] if by_attribute else args
        if by_attribute and not args:
            raise TemplateError("the name of the attribute is missing")
        get = _getter(context, args[0]) if by_attribute else _getter(context, None)
        test = _named(context, rest[0], TESTS, "test") if rest else bool
        return [item for item in sequence(value) if bool(test(get(item), *rest[1:])) is keep]

    return select


_TITLE: Final = JINJA_FILTERS["title"]

FILTERS: Final[Mapping[str, Function]] = {
    "abs": lambda _, value: abs(number(value)),
    "batch": _batch,
    "capitalize": _of_text(str.capitalize),
    "center": _center,
    "count": lambda _, value: len(sequence(value)),
    "d": _default,
    "default": _default,
    "dictsort": _dictsort,
    "first": _first,
    "float": _float,
    "format": _format,
    "groupby": _groupby,
    "indent": _indent,
    "int": _int,
    "items": _items,
    "join": _join,
    "last": _last,
    "length": lambda _, value: len(sequence(value)),
    "list": lambda _, value: list(sequence(value)),
    "lower": _of_text(str.lower),
    "map": _map,
    "max": _extreme(max),
    "min": _extreme(min),
    "reject": _select(keep=False, by_attribute=False),
    "rejectattr": _select(keep=False, by_attribute=True),
    "replace": _replace,
    "reverse": _reverse,
    "round": _round,
    "select": _select(keep=True, by_attribute=False),
    "selectattr": _select(keep=True, by_attribute=True),
    "slice": _slice,
    "sort": _sort,
    "string": _of_text(str),
    "sum": _sum,
    "title": _of_text(_TITLE),
    "trim": _trim,
    "truncate": _truncate,
    "unique": _unique,
    "upper": _of_text(str.upper),
    "wordcount": _of_text(lambda text: len(re.findall(r"\w+", text))),
}

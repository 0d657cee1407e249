"""The methods of texts, mappings and lists that templates may call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from seedream_batch.templates.limits import Budget, TemplateError, joined, kind_of, replaced, whole

Run = Callable[..., Any]

_COMPARISONS_A_STEP: Final = 13  # as a power of 2


class Method:
    """A method of a value, not called yet; not a tuple, which a template could unpack."""

    __slots__ = ("name", "owner")

    def __init__(self, owner: Any, name: str) -> None:
        self.owner = owner
        self.name = name


def _plain(method: Callable[..., Any]) -> Run:
    """Wrap a method whose result is at most a few times as large as its input."""
    return lambda _, owner, *args, **kwargs: method(owner, *args, **kwargs)


def _padded(method: Callable[..., str]) -> Run:
    def pad(budget: Budget, text: str, width: int, *fill: str) -> str:
        budget.fits(whole(width, "the width"))
        return method(text, width, *fill)

    return pad


def _backwards(method: Callable[..., Any]) -> Run:
    """Wrap a method that searches from the end, which Python does in quadratic time."""

    def search(budget: Budget, text: str, *args: Any, **kwargs: Any) -> Any:
        for wanted in (*args, *kwargs.values()):
            if isinstance(wanted, str):
                budget.spend(len(text) * len(wanted) >> _COMPARISONS_A_STEP)
        return method(text, *args, **kwargs)

    return search


def _replace(budget: Budget, text: str, old: str, new: str, count: int = -1) -> str:
    if not isinstance(old, str) or not isinstance(new, str):
        raise TemplateError("`replace` expects text")
    return replaced(text, old, new, count, budget)


def _join(budget: Budget, separator: str, items: Any) -> str:
    if not isinstance(items, (list, tuple, dict, str)):
        raise TemplateError(f"`join` expects a list, not {kind_of(items)}")
    return joined(separator, items, budget)


def _listed(method: Callable[..., Any]) -> Run:
    """Wrap a method that returns a view, so that it returns a list, which has a length and indexes."""
    return lambda _, owner: list(method(owner))


TEXT: Final[Mapping[str, Run]] = {
    **{
        name: _plain(getattr(str, name))
        for name in (
            *("capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdecimal"),
            *("isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "lower", "lstrip", "partition"),
            *("removeprefix", "removesuffix", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase"),
            *("title", "upper"),
        )
    },
    **{name: _backwards(getattr(str, name)) for name in ("rfind", "rindex", "rpartition", "rsplit")},
    **{name: _padded(getattr(str, name)) for name in ("center", "ljust", "rjust", "zfill")},
    "join": _join,
    "replace": _replace,
}
MAPPING: Final[Mapping[str, Run]] = {
    "get": _plain(dict.get),
    "items": _listed(dict.items),
    "keys": _listed(dict.keys),
    "values": _listed(dict.values),
}
LIST: Final[Mapping[str, Run]] = {
    "count": lambda _, owner, value: owner.count(value),
    "index": lambda _, owner, *args: owner.index(*args),
}


def methods_of(value: Any) -> Mapping[str, Run]:
    """Return the methods that templates may call on this value."""
    if isinstance(value, str):
        return TEXT
    if isinstance(value, dict):
        return MAPPING
    if isinstance(value, (list, tuple)):
        return LIST
    return {}


def run_method(method: Method, budget: Budget, *args: Any, **kwargs: Any) -> Any:
    """Call the method, and charge for its arguments and its result. Raises `TemplateError`."""
    budget.handle(method.owner)
    try:
        result = methods_of(method.owner)[method.name](budget, method.owner, *args, **kwargs)
    except TypeError as error:
        message = re.sub(r"^[\w.<>]+\(\) ", "", str(error))
        raise TemplateError(f"`{method.name}`: {message}") from None
    if isinstance(result, str):
        return budget.made(result)
    return budget.handle(result)

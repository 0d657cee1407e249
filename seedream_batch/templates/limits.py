"""What templates may compute with, and how much of it.

Everything is counted, nothing is timed: whether a template is refused must not depend on the machine. A step is worth
about a microsecond; a loop iteration, a call or a filter takes one, and further ones depend on the size of what is
handled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from jinja2 import Undefined
from jinja2.sandbox import SandboxedEnvironment

MAX_CALL_DEPTH: Final = 50
"""Deepest nesting of calls of macros, includes and recursive loops."""

MAX_NUMBER_BITS: Final = 4096
"""Most bits of an integer from arithmetic: what Python can still print."""

MAX_WIDTH: Final = 1_000
"""Largest width or precision for formatting."""

_CHARACTERS_A_STEP: Final = 7  # as a power of 2
_CHARACTERS_A_UNIT: Final = 4
_UNITS_A_STEP: Final = 3


class TemplateError(Exception):
    """Raised if a template cannot be compiled or rendered: what is wrong, the line (from 1), and a hint."""

    def __init__(self, message: str, line: int | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.hint = hint


class Budget:
    """The remaining steps of one rendering."""

    __slots__ = ("depth", "left", "max_output")

    def __init__(self, max_steps: int, max_output: int) -> None:
        self.left = max_steps
        self.depth = 0
        self.max_output = max_output

    def spend(self, steps: int) -> None:
        """Take steps from the budget. Raises `TemplateError` if there are too few left."""
        self.left -= steps
        if self.left < 0:
            raise TemplateError("the template takes too many steps", hint="use shorter loops")

    def handle(self, value: Any) -> Any:
        """Charge for the size of a value, and return it."""
        if isinstance(value, str):
            self.spend(len(value) >> _CHARACTERS_A_STEP)
        elif isinstance(value, (list, tuple, dict, range)):
            self.spend(weigh(value, (self.left + 1) << _UNITS_A_STEP) >> _UNITS_A_STEP)
        return value

    def made(self, text: str) -> str:
        """Check the length of a text, charge for it, and return it."""
        self.fits(len(text))
        self.spend(len(text) >> _CHARACTERS_A_STEP)
        return text

    def fits(self, length: int) -> None:
        """Raise `TemplateError` if a text would be too long; call it before creating the text."""
        if length > self.max_output:
            raise TemplateError(f"the rendered text has more than {self.max_output:,} characters")

    def enter(self) -> None:
        """Enter a call. Raises `TemplateError` if calls are nested too deeply."""
        self.depth += 1
        if self.depth > MAX_CALL_DEPTH:
            raise TemplateError(
                f"calls or includes are nested more than {MAX_CALL_DEPTH} levels deep", hint="does it call itself?"
            )

    def leave(self) -> None:
        self.depth -= 1


def weigh(value: Any, limit: int) -> int:
    """Return the number of values in `value`, with shared ones counted each time; stops counting above `limit`.

    `{% set ns.x = [ns.x, ns.x] %}` doubles it in each iteration while storing next to nothing.
    """
    total = 0
    stack = [value]
    while stack and total <= limit:
        item = stack.pop()
        if isinstance(item, str):
            total += len(item) >> _CHARACTERS_A_UNIT
        elif isinstance(item, (list, tuple)):
            total += len(item)
            if total <= limit:
                stack.extend(item)
        elif isinstance(item, dict):
            total += 2 * len(item)
            if total <= limit:
                stack.extend(item)
                stack.extend(item.values())
        elif isinstance(item, range):
            total += len(item)
    return total


def kind_of(value: Any) -> str:
    """Return the kind of a value for messages, with its article."""
    if value is None:
        return "null"
    for types, name in (
        (bool, "a boolean"),
        (str, "text"),
        ((int, float), "a number"),
        (Mapping, "a mapping"),
        ((list, tuple, range), "a list"),
    ):
        if isinstance(value, types):
            return name
    return f"a {type(value).__name__.lower()}"


def to_text(value: Any, budget: Budget) -> str:
    """Return a value as inserted into text. Raises `TemplateError` for values that nobody can have meant.

    A null or a mapping in a prompt (`None`, `{'id': 'panda'}`) is a mistake that costs money.
    """
    if isinstance(value, str):
        return budget.made(value)
    if isinstance(value, (bool, int, float)):
        return str(value)
    if isinstance(value, Undefined):
        return str(value)  # raises: the undefined is a strict one
    if value is None:
        raise TemplateError(
            "null cannot be shown as text", hint="write `| default('...', true)` for a value that may be null"
        )
    if isinstance(value, Mapping):
        keys = ", ".join(str(key) for key in list(value)[:8])
        raise TemplateError("a mapping cannot be shown as text", hint=f"use one of its keys: {keys}"[:300])
    if isinstance(value, (list, tuple, range)):
        raise TemplateError("a list cannot be shown as text", hint="write `| join(', ')`")
    raise TemplateError(f"{kind_of(value)} cannot be shown as text", hint="are parentheses missing?")


def joined(separator: str, items: Iterable[Any], budget: Budget) -> str:
    """Return the texts of the items, joined. Raises `TemplateError` before the result gets too long."""
    pieces: list[str] = []
    length = 0
    for item in items:
        pieces.append(to_text(item, budget))
        length += len(pieces[-1]) + (len(separator) if len(pieces) > 1 else 0)
        budget.fits(length)
    return separator.join(pieces)


def replaced(text: str, old: str, new: str, count: Any, budget: Budget) -> str:
    """Return `text.replace(old, new, count)`. Raises `TemplateError` if the result would be too long."""
    times = text.count(old)
    times = times if whole(count, "the count") < 0 else min(times, count)
    budget.fits(len(text) + times * (len(new) - len(old)))
    return text.replace(old, new, count)


def whole(value: Any, what: str) -> int:
    """Return an argument that must be an integer. Raises `TemplateError`."""
    if not isinstance(value, int):
        raise TemplateError(f"{what} must be a whole number, not {kind_of(value)}")
    return int(value)


def number(value: Any) -> Any:
    if isinstance(value, (int, float)):
        return value
    raise TemplateError(f"expected a number, got {kind_of(value)}")


def sequence(value: Any) -> Any:
    """Return a value that can be iterated over. Raises `TemplateError`."""
    if isinstance(value, (str, list, tuple, dict, range)):
        return value
    if isinstance(value, Undefined):
        str(value)  # raises
    raise TemplateError(f"cannot loop over {kind_of(value)}")


def binary(sign: str, left: Any, right: Any, budget: Budget) -> Any:
    """Return `left sign right` if the types support it and the result is bounded. Raises `TemplateError`."""
    for side in (left, right):
        if isinstance(side, Undefined):
            str(side)  # raises
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return _arithmetic(sign, left, right)
    if sign == "+" and isinstance(left, str) and isinstance(right, str):
        budget.fits(len(left) + len(right))
        return budget.made(left + right)
    for kind in (list, tuple):
        if sign == "+" and isinstance(left, kind) and isinstance(right, kind):
            budget.handle((left, right))
            return kind((*left, *right))
    if sign == "%" and isinstance(left, str):
        return percent(left, right, budget)
    if sign == "*" and (isinstance(left, int) or isinstance(right, int)):
        times, repeated = (left, right) if isinstance(left, int) else (right, left)
        if isinstance(repeated, (str, list, tuple)):
            return _repeated(repeated, times, budget)
    hint = "write `~` to join texts" if sign == "+" else ""
    raise TemplateError(f"`{sign}` does not work with {kind_of(left)} and {kind_of(right)}", hint=hint)


def _repeated(value: str | list[Any] | tuple[Any, ...], times: int, budget: Budget) -> Any:
    if isinstance(value, str):
        budget.fits(len(value) * times)
        return budget.made(value * times)
    budget.spend(max(0, times) * (len(value) + weigh(value, budget.left << _UNITS_A_STEP)))
    return value * times


def _arithmetic(sign: str, left: float, right: float) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        bits = max(left.bit_length(), right.bit_length())
        if sign == "*":
            bits = left.bit_length() + right.bit_length()
        elif sign == "**" and right > 0:
            bits = left.bit_length() * right
        if bits > MAX_NUMBER_BITS and not (sign == "**" and abs(left) <= 1):
            raise TemplateError("the number is too large")
    value = SandboxedEnvironment.default_binop_table[sign](left, right)
    if not isinstance(value, (int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise TemplateError(f"the result of `{sign}` is not a number")
    return value


_CONVERSION: Final = re.compile(
    r"%(?:\((?P<key>[^()]*)\))?(?P<flags>[#0\- +]*)(?P<width>\d*)(?:\.(?P<precision>\d*))?(?P<type>.?)",
    re.ASCII | re.DOTALL,
)


def percent(pattern: str, values: Any, budget: Budget) -> str:
    """Return `pattern % values`, formatted piece by piece so that no width can be too large."""
    by_name: Mapping[str, Any] = values if isinstance(values, dict) else {}
    in_order: Sequence[Any] = values if isinstance(values, tuple) else (values,)
    pieces: list[str] = []
    used = length = end = 0
    for match in _CONVERSION.finditer(pattern):
        pieces.append(pattern[end : match.start()])
        end = match.end()
        letter, key = match["type"], match["key"]
        if letter == "%":
            pieces.append("%")
        elif letter and letter in "diouxXeEfFgGs":
            if max(int(match["width"][:9] or 0), int((match["precision"] or "")[:9] or 0)) > MAX_WIDTH:
                raise TemplateError(f"a width of more than {MAX_WIDTH:,} in {match.group()[:40]!r}")
            if key is not None:
                if key not in by_name:
                    raise TemplateError(f"no value for %({key})s")
                value = by_name[key]
            elif used < len(in_order):
                value = in_order[used]
                used += 1
            else:
                raise TemplateError(f"too few values for the pattern {pattern[:60]!r}")
            value = to_text(value, budget) if letter == "s" or not isinstance(value, (int, float)) else value
            spec = "%" + match.group()[1 + (len(key) + 2 if key is not None else 0) :]
            pieces.append(spec % (value,))
        else:
            raise TemplateError(f"{match.group()[:40]!r} is not a valid conversion", hint="write %% for a percent sign")
        length += len(pieces[-1]) + len(pieces[-2])
        budget.fits(length)
    if used < len(in_order) and not by_name and not isinstance(values, dict):
        raise TemplateError(f"too many values for the pattern {pattern[:60]!r}")
    return budget.made("".join(pieces) + pattern[end:])

"""Values with the positions they were written at, and the problems found in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Json: TypeAlias = Any
"""None, bool, int, float, str, a list of Json or a dict from str to Json."""

Path: TypeAlias = tuple[str | int, ...]
"""The path from the root of a document to a value: keys of mappings and indexes of sequences."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text file; `line` and `column` start at 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class _Written:
    """A number that prints as it was written: 007, 3.10."""

    written: str

    def __str__(self) -> str:
        return self.written


class WrittenInt(_Written, int):
    """An integer that prints as it was written."""


class WrittenFloat(_Written, float):
    """A float that prints as it was written."""


def written_as(value: float, text: str) -> WrittenInt | WrittenFloat | None:
    """Return a number that prints as `text`; None if the value already does."""
    if str(value) == text:
        return None
    number = WrittenInt(value) if isinstance(value, int) else WrittenFloat(value)
    number.written = text
    return number


@dataclass(slots=True)
class Mark:
    """Where one value starts, and the marks of the values in it.

    `keys` maps the keys of a mapping to the (line, column) of the key itself, `items` to the mark of the value; for a
    sequence, `items` is a list. Lines and columns start at 1. An alias shares the mark of its anchor. `written` is the
    number as it was written, where the value itself prints differently.
    """

    line: int
    column: int
    items: dict[str, Mark] | list[Mark] | None = None
    keys: dict[str, tuple[int, int]] | None = None
    written: WrittenInt | WrittenFloat | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its value, and the position of each part of it."""

    file: str
    value: Json
    mark: Mark

    def position(self, path: Sequence[str | int] = (), *, key: bool = False) -> Position:
        """Return the position of the value at `path`, or of its nearest existing parent.

        With `key`, return the position of the last key instead of its value.
        """
        mark = self.mark
        last = (mark.line, mark.column)
        for step in path:
            items = mark.items
            if isinstance(items, dict) and isinstance(step, str) and step in items:
                last = mark.keys[step] if mark.keys else (mark.line, mark.column)
                mark = items[step]
            elif isinstance(items, list) and isinstance(step, int) and 0 <= step < len(items):
                mark = items[step]
                last = (mark.line, mark.column)
            else:
                return Position(self.file, mark.line, mark.column)
        line, column = last if key else (mark.line, mark.column)
        return Position(self.file, line, column)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a job file: where, what, and how to fix it.

    `path` is the dotted path of the value (`request.n`, `matrix.subject[2].id`), empty for the whole file. `cell` names
    the first affected matrix cell, and `count` is the number of cells with the same cause. All texts are safe to print:
    control characters and line breaks are escaped, and overlong texts are shortened in the middle.
    """

    path: str
    message: str
    position: Position | None = None
    hint: str = ""
    cell: str = ""
    count: int = 1

    def __post_init__(self) -> None:
        for name in ("path", "message", "hint", "cell"):
            text = getattr(self, name)
            if len(text) > _LONGEST or not text.isprintable():
                short = text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
                object.__setattr__(self, name, _CONTROL.sub(_escape_control, short))

    def __str__(self) -> str:
        text = f"{self.position}: " if self.position else ""
        if self.path:
            text += f"{self.path}: "
        text += self.message
        if self.hint:
            text += f" ({self.hint})"
        if self.cell:
            others = self.count - 1
            more = f", and {others:,} more {'cell' if others == 1 else 'cells'}" if others else ""
            text += f" [cell {self.cell}{more}]"
        return text


_LONGEST = 1000
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _escape_control(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode()


def dotted(path: Sequence[str | int]) -> str:
    """Return `("matrix", "subject", 2, "id")` as `matrix.subject[2].id`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


@dataclass(frozen=True, slots=True)
class Table:
    """The values of an axis that are read from a file.

    `typed` is false for formats that only have text (csv, tsv, txt). `positions[i]` is the (line, column) in `file`
    where value `i` starts. `earlier[i]` are the values that earlier versions may have read instead; `written[i]` is the
    value with its numbers as they were written, where those print differently.
    """

    file: str
    values: Sequence[Json]
    positions: Sequence[tuple[int, int]]
    typed: bool
    earlier: Mapping[int, Sequence[Json]] = field(default_factory=dict)
    written: Mapping[int, Json] = field(default_factory=dict)

    def position(self, index: int) -> Position:
        """Return where value `index` starts."""
        line, column = self.positions[index]
        return Position(self.file, line, column)

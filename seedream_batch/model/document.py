"""Values with the positions they were written at, and the problems found in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

Json: TypeAlias = Any
"""None, bool, int, float, str, a list of Json or a dict from str to Json."""

Path: TypeAlias = tuple[str | int, ...]
"""The way from the root of a document to a value: keys of mappings and indexes of sequences."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text file; `line` and `column` start at 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class WrittenInt(int):
    """A whole number that prints as it was written: 007."""

    def __new__(cls, value: int, written: str) -> Self:
        made = super().__new__(cls, value)
        made.written = written
        return made

    written: str

    def __str__(self) -> str:
        return self.written


class WrittenFloat(float):
    """A number that prints as it was written: 3.10."""

    def __new__(cls, value: float, written: str) -> Self:
        made = super().__new__(cls, value)
        made.written = written
        return made

    written: str

    def __str__(self) -> str:
        return self.written


def written_as(value: float, text: str) -> WrittenInt | WrittenFloat | None:
    """The number that prints as its text; None where it does so anyway."""
    if str(value) == text:
        return None
    return WrittenInt(value, text) if isinstance(value, int) else WrittenFloat(value, text)


@dataclass(slots=True)
class Mark:
    """Where one value starts, and the marks of what it holds.

    `keys` maps the keys of a mapping to the (line, column) of the key itself, `items` to the mark of
    the value; for a sequence `items` is a list. Lines and columns start at 1. An aliased value shares the mark of
    its anchor. `written` is a number that prints as it was written, where the value itself prints in another way.
    """

    line: int
    column: int
    items: dict[str, Mark] | list[Mark] | None = None
    keys: dict[str, tuple[int, int]] | None = None
    written: WrittenInt | WrittenFloat | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its value, and where each part of it was written."""

    file: str
    value: Json
    mark: Mark

    def position(self, path: Sequence[str | int] = (), *, key: bool = False) -> Position:
        """The position of the value at `path`, or of the nearest part around it that exists.

        With `key`, the position of the last key instead of its value.
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
    """Something wrong in a job file: where, what, and how to mend it.

    `path` is the dotted path of the value (`request.n`, `matrix.subject[2].id`), empty for the whole file.
    `cell` names the first matrix cell to blame, and `count` says how many cells have this very cause.
    Its texts are fit to print whatever names and values bring along: control characters and line breaks become
    escapes, and what is beyond reading is cut.
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
                object.__setattr__(self, name, _CONTROL.sub(_escape, short))

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


def _escape(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()


def dotted(path: Sequence[str | int]) -> str:
    """`("matrix", "subject", 2, "id")` as `matrix.subject[2].id`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


@dataclass(frozen=True, slots=True)
class Table:
    """The values of an axis that comes from a file.

    `typed` is false where the format knows only text (csv, tsv, txt). `positions[i]` is the (line, column)
    that value `i` starts at in `file`. `earlier[i]` are the values that earlier versions may have read
    instead; `written[i]` is one whose numbers print as they are written, where that is not how they print.
    """

    file: str
    values: Sequence[Json]
    positions: Sequence[tuple[int, int]]
    typed: bool
    earlier: Mapping[int, Sequence[Json]] = field(default_factory=dict)
    written: Mapping[int, Json] = field(default_factory=dict)

    def position(self, index: int) -> Position:
        """Where value `index` starts."""
        line, column = self.positions[index]
        return Position(self.file, line, column)

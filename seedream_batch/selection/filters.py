"""`--select subject=fox,panda` -> whether a cell is meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from seedream_batch.errors import UsageError
from seedream_batch.expand.matrix import cells
from seedream_batch.model.cell import CUT, matches, whole_name
from seedream_batch.model.document import Json
from seedream_batch.model.job import Job

Selection = Callable[[Mapping[str, Json]], bool]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One text of a selection: the axis, a key of its mappings or "", and the values, of which any may fit.

    `written` holds the values as they were written, for a comma may belong to a value; one in quotes stands alone.
    """

    text: str
    axis: str
    key: str
    values: tuple[str, ...]
    written: tuple[str | None, ...] = ()

    def fits(self, cell: Mapping[str, Json]) -> bool:
        """Whether a cell has one of the values."""
        return _fits(cell, self.axis, self.key, self.values)

    def read_with(self, is_value: Callable[[str], bool]) -> Iterator[tuple[str, ...]]:
        """The ways to read it as values, each comma between two values or in one; `is_value` says what is one."""
        if all(map(is_value, self.values)):
            yield self.values
            return
        yield from _readings(self.values, self.written, is_value)


def _readings(
    values: tuple[str, ...], written: tuple[str | None, ...], is_value: Callable[[str], bool]
) -> Iterator[tuple[str, ...]]:
    if not values:
        yield ()
    for end in range(1, len(values) + 1):
        texts = [text for text in written[:end] if text is not None]
        if end > 1 and len(texts) < end:
            return
        value = values[0] if end == 1 else ",".join(texts).strip()
        if is_value(value):
            for rest in _readings(values[end:], written[end:], is_value):
                yield (value, *rest)


_PIECE = re.compile(r'\s*"((?:[^"\\]|\\.|"")*)"\s*(?:,|\Z)|((?:[^,\\]|\\.|\\\Z)*)(?:,|\Z)', re.DOTALL)
_ESCAPED = re.compile(r'\\([,"\\])')


def parsed(texts: Sequence[str]) -> tuple[Wanted, ...]:
    r"""What each text wants. Raises `UsageError` for one that says nothing.

    `AXIS=VALUE` fits as in an exclude (the value itself, or the `id` of a mapping) and by the name that is printed for
    it, `AXIS.KEY=VALUE` by a key of a mapping. Values are text, so numbers and booleans fit as they are written.
    Quotes and backslashes keep a comma in a value: `"a fox, asleep"`, `a fox\, asleep`.
    """
    wanted = []
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name or not values:
            raise UsageError(f"--select {text}: write AXIS=VALUE, for example subject=fox or size=16:9,9:16")
        axis, _, key = name.strip().partition(".")
        pieces = _pieces(values)
        wanted.append(Wanted(text, axis, key, tuple(value for value, _ in pieces), tuple(raw for _, raw in pieces)))
    return tuple(wanted)


def _pieces(text: str) -> list[tuple[str, str | None]]:
    """The values between commas, each with the text it was written as, None for one in quotes."""
    pieces: list[tuple[str, str | None]] = []
    for found in _PIECE.finditer(f"{text},"):
        quoted, plain = found.groups()
        if quoted is not None:
            pieces.append((_ESCAPED.sub(r"\1", quoted).replace('""', '"'), None))
        elif found.end() > found.start():
            value = _ESCAPED.sub(r"\1", plain)
            pieces.append((value.strip(), value))
    return pieces


def selection(wanted: Sequence[Wanted]) -> Selection:
    """A test for cells: every part of the selection has to fit."""
    return lambda cell: all(one.fits(cell) for one in wanted)


def fits_a_cell(job: Job, wanted: Sequence[Wanted]) -> bool:
    """Whether any cell of the job fits; only cells that may are made."""
    fits = selection(wanted)
    if not {one.axis for one in wanted} <= {axis.name for axis in job.axes}:
        return any(map(fits, job.include))
    axes = []
    for axis in job.axes:
        mine = [one for one in wanted if one.axis == axis.name]
        values = [value for value in axis.values if all(one.fits({axis.name: value}) for one in mine)]
        axes.append(replace(axis, values=values, positions=()))
    return any(fits(cell) for cell in cells(replace(job, axes=tuple(axes))))


def _fits(cell: Mapping[str, Json], axis: str, key: str, values: Sequence[str]) -> bool:
    if axis not in cell:
        return False
    value = cell[axis]
    if key:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return any(matches(value, one) or _is_called(value, one) for one in values)


def _is_called(value: Json, text: str) -> bool:
    """Whether a value is written or printed like this, as a whole or cut."""
    if not isinstance(value, dict | list) and _text(value) == text:
        return True
    name = whole_name(value)
    return name == text or (text.endswith(CUT) and name.startswith(text[:-1]))


def _text(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)

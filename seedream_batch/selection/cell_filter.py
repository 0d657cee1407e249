"""Parse `--select subject=fox,panda` into a predicate on cells."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from seedream_batch.errors import UsageError
from seedream_batch.expand.matrix import cells
from seedream_batch.model.cell import CUT, CellFilter, matches, whole_name
from seedream_batch.model.document import Json
from seedream_batch.model.job import Job


@dataclass(frozen=True, slots=True)
class Wanted:
    """One `--select` option: an axis, a key of its mapping values or "", and alternative values.

    `values` are trimmed and unescaped. `written` holds the same values untrimmed, because a comma may be part of a
    value; None stands for a quoted one, which is never joined with its neighbours.
    """

    text: str
    axis: str
    key: str
    values: tuple[str, ...]
    written: tuple[str | None, ...] = ()

    def fits(self, cell: Mapping[str, Json]) -> bool:
        """Return whether a cell has one of the values."""
        return _fits(cell, self.axis, self.key, self.values)

    def read_with(self, is_value: Callable[[str], bool]) -> Iterator[tuple[str, ...]]:
        """Yield each way to read the text as values, where a comma separates two values or belongs to one.

        `is_value` decides what counts as a value.
        """
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
    r"""Parse `--select` options. Raises `UsageError` if one is not of the form AXIS=VALUE.

    `AXIS=VALUE` matches as in an exclude (the value itself, or the `id` of a mapping) and by the printed name,
    `AXIS.KEY=VALUE` by a key of a mapping. Values are text, so numbers and booleans match as they are written. Quotes
    and backslashes keep a comma in a value: `"a fox, asleep"`, `a fox\, asleep`.
    """
    wanted = []
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name or not values:
            raise UsageError(f"--select {text}: write AXIS=VALUE, for example subject=fox or size=16:9,9:16")
        axis, _, key = name.strip().partition(".")
        pieces = _split_values(values)
        wanted.append(Wanted(text, axis, key, tuple(value for value, _ in pieces), tuple(raw for _, raw in pieces)))
    return tuple(wanted)


def _split_values(text: str) -> list[tuple[str, str | None]]:
    """Return the values between commas, each with its source text, or None if it was quoted."""
    pieces: list[tuple[str, str | None]] = []
    for match in _PIECE.finditer(f"{text},"):
        quoted, plain = match.groups()
        if quoted is not None:
            pieces.append((_ESCAPED.sub(r"\1", quoted).replace('""', '"'), None))
        elif match.end() > match.start():
            value = _ESCAPED.sub(r"\1", plain)
            pieces.append((value.strip(), value))
    return pieces


def selection(wanted: Sequence[Wanted]) -> CellFilter:
    """Return a predicate that accepts a cell which matches every option."""
    return lambda cell: all(option.fits(cell) for option in wanted)


def fits_a_cell(job: Job, wanted: Sequence[Wanted]) -> bool:
    """Return whether any cell of the job matches; only generates cells that may."""
    fits = selection(wanted)
    if not {option.axis for option in wanted} <= {axis.name for axis in job.axes}:
        return any(map(fits, job.include))
    axes = []
    for axis in job.axes:
        options = [option for option in wanted if option.axis == axis.name]
        values = [value for value in axis.values if all(option.fits({axis.name: value}) for option in options)]
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
    return any(matches(value, wanted) or _has_name(value, wanted) for wanted in values)


def _has_name(value: Json, text: str) -> bool:
    """Return whether this is the text or the printed name of a value, possibly cut."""
    if not isinstance(value, dict | list) and _text(value) == text:
        return True
    name = whole_name(value)
    return name == text or (text.endswith(CUT) and name.startswith(text[:-1]))


def _text(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)

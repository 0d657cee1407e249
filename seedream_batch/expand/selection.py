"""`--select subject=fox,panda` -> whether a cell is meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from seedream_batch.errors import UsageError
from seedream_batch.expand.matrix import cells, matches
from seedream_batch.model.document import Json
from seedream_batch.model.job import Job

Selection = Callable[[Mapping[str, Json]], bool]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One text of a selection: the axis, a key of its mappings or "", and the values, of which any may fit."""

    text: str
    axis: str
    key: str
    values: tuple[str, ...]

    def fits(self, cell: Mapping[str, Json]) -> bool:
        """Whether a cell has one of the values."""
        return _fits(cell, self.axis, self.key, self.values)


def parsed(texts: Sequence[str]) -> tuple[Wanted, ...]:
    """What each text wants. Raises `UsageError` for one that says nothing.

    `AXIS=VALUE` fits as in an exclude (the value itself, or the `id` of a mapping), `AXIS.KEY=VALUE` by a key of a
    mapping. Values are text, so numbers and booleans fit as they are written.
    """
    wanted = []
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name or not values:
            raise UsageError(f"--select {text}: write AXIS=VALUE, for example subject=fox or size=16:9,9:16")
        axis, _, key = name.strip().partition(".")
        wanted.append(Wanted(text, axis, key, tuple(value.strip() for value in values.split(","))))
    return tuple(wanted)


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
    return any(matches(value, one) or (not isinstance(value, dict | list) and _text(value) == one) for one in values)


def _text(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)

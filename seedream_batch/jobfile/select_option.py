"""Checks `--select` and `--group-by` against the job: a typo must not silently select nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

from seedream_batch.errors import UsageError
from seedream_batch.model.cell import CUT, CellFilter, whole_name
from seedream_batch.model.document import Json
from seedream_batch.model.job import Job
from seedream_batch.selection.cell_filter import Wanted, fits_a_cell, parsed, selection
from seedream_batch.validate import did_you_mean


def chosen(texts: Sequence[str], job: Job, *, also: Sequence[Mapping[str, Json]] = ()) -> CellFilter:
    """Return the predicate on cells that the texts describe.

    Each value must match a cell of the job or of `also`: cells that the job no longer has. Raises `UsageError`.
    """
    axes = dict.fromkeys([axis.name for axis in job.axes])
    axes.update(dict.fromkeys(name for cell in (*job.include, *also) for name in cell))
    wanted = []
    for option in parsed(texts):
        if option.axis not in axes:
            near = did_you_mean(option.axis, axes)
            more = f"did you mean `{near}`?" if near else f"axes: {', '.join(axes)}"
            raise UsageError(f"--select {option.text}: no axis `{option.axis}` in the job ({more})")
        wanted.append(replace(option, values=_resolve_values(option, job, also)))
    if len(wanted) > 1 and not fits_a_cell(job, wanted) and not any(map(selection(wanted), also)):
        raise UsageError(f"no cell of the job matches all of --select {' --select '.join(texts)}")
    return selection(wanted)


def _resolve_values(option: Wanted, job: Job, also: Sequence[Mapping[str, Json]]) -> tuple[str, ...]:
    """Return the values of one option, each of a cell; a value may contain commas. Raises `UsageError`."""

    @cache
    def is_value(value: str) -> bool:
        single = (replace(option, values=(value,)),)
        return fits_a_cell(job, single) or any(map(selection(single), also))

    readings = list(itertools.islice(option.read_with(is_value), 2))
    in_quotes = """put a value with a comma in double quotes: 'AXIS="one, two"'"""
    if not readings:
        value = next(value for value in option.values if not is_value(value))
        more = f" ({in_quotes})" if len(option.values) > 1 else ""
        raise UsageError(f"--select {option.text}: no cell of the job has {value or 'an empty value'}{more}")
    if len(readings) > 1:
        raise UsageError(f"--select {option.text}: the commas are ambiguous; {in_quotes}")
    for value in readings[0]:
        _check_cut_name(replace(option, values=(value,)), job)
    return readings[0]


def _check_cut_name(option: Wanted, job: Job) -> None:
    """Raise `UsageError` if a shortened name fits several values: a run must not buy more than intended."""
    (value,) = option.values
    if value.endswith(CUT):
        cells = [*({axis.name: axis_value} for axis in job.axes for axis_value in axis.values), *job.include]
        matching = dict.fromkeys(whole_name(cell[option.axis]) for cell in cells if option.fits(cell))
        if len(matching) > 1:
            shown = ", ".join(list(matching)[:5])
            raise UsageError(f"--select {option.text}: {value} could mean {shown}; be more specific")


def grouping(text: str, job: Job) -> tuple[str, ...]:
    """Return the path into a cell that `--group-by` names: an axis, or a key of its values. Raises `UsageError`."""
    known: dict[str, None] = {}
    for path in itertools.chain.from_iterable(map(_paths, _values(job))):
        if path == text:
            return tuple(text.split("."))
        known[path] = None
    near = did_you_mean(text, known)
    more = f"did you mean `{near}`?" if near else f"available: {', '.join(list(known)[:20])}"
    raise UsageError(f"--group-by {text}: no cell of the job has it ({more})")


def _values(job: Job) -> Iterator[Mapping[str, Json]]:
    for axis in job.axes:
        yield from ({axis.name: value} for value in axis.values)
    yield from job.include


def _paths(values: Mapping[str, Json], before: str = "") -> Iterator[str]:
    for name, value in values.items():
        # A dot separates keys, so a key that contains one cannot be named.
        if "." not in name:
            yield f"{before}{name}"
            if isinstance(value, dict):
                yield from _paths(value, f"{before}{name}.")

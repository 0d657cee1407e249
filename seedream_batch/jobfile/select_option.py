"""`--select` and `--group-by`, checked against the job: a slip of the pen must not choose nothing in silence."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

from seedream_batch.errors import UsageError
from seedream_batch.model.cell import CUT, whole_name
from seedream_batch.model.document import Json
from seedream_batch.model.job import Job
from seedream_batch.selection.filters import Selection, Wanted, fits_a_cell, parsed, selection
from seedream_batch.validate import did_you_mean


def chosen(texts: Sequence[str], job: Job, *, also: Sequence[Mapping[str, Json]] = ()) -> Selection:
    """The test for cells that the texts describe.

    Each value has to fit a cell of the job, or one of `also`: cells that the job no longer has. Raises `UsageError`.
    """
    axes = dict.fromkeys([axis.name for axis in job.axes])
    axes.update(dict.fromkeys(name for cell in (*job.include, *also) for name in cell))
    wanted = []
    for one in parsed(texts):
        if one.axis not in axes:
            near = did_you_mean(one.axis, axes)
            more = f"did you mean `{near}`?" if near else f"its axes are {', '.join(axes)}"
            raise UsageError(f"--select {one.text}: the job has no axis `{one.axis}` ({more})")
        wanted.append(replace(one, values=_values_meant(one, job, also)))
    if len(wanted) > 1 and not fits_a_cell(job, wanted) and not any(map(selection(wanted), also)):
        raise UsageError(f"no cell of the job fits all of --select {' --select '.join(texts)}")
    return selection(wanted)


def _values_meant(one: Wanted, job: Job, also: Sequence[Mapping[str, Json]]) -> tuple[str, ...]:
    """The values of one text, each of a cell; a comma may be in a value. Raises `UsageError`."""

    @cache
    def is_value(value: str) -> bool:
        single = (replace(one, values=(value,)),)
        return fits_a_cell(job, single) or any(map(selection(single), also))

    readings = list(itertools.islice(one.read_with(is_value), 2))
    in_quotes = """put a value with a comma in double quotes: 'AXIS="one, two"'"""
    if not readings:
        value = next(value for value in one.values if not is_value(value))
        more = f" ({in_quotes})" if len(one.values) > 1 else ""
        raise UsageError(f"--select {one.text}: no cell of the job has {value or 'an empty value'}{more}")
    if len(readings) > 1:
        raise UsageError(f"--select {one.text}: the commas can be read in more than one way; {in_quotes}")
    for value in readings[0]:
        _check_cut_name(replace(one, values=(value,)), job)
    return readings[0]


def _check_cut_name(one: Wanted, job: Job) -> None:
    """Raises `UsageError` for the cut name of several values: a run must not buy more than was meant."""
    (value,) = one.values
    if value.endswith(CUT):
        cells = [*({axis.name: found} for axis in job.axes for found in axis.values), *job.include]
        fitting = dict.fromkeys(whole_name(cell[one.axis]) for cell in cells if one.fits(cell))
        if len(fitting) > 1:
            shown = ", ".join(list(fitting)[:5])
            raise UsageError(f"--select {one.text}: {value} may be {shown}; write more of the one you mean")


def grouping(text: str, job: Job) -> tuple[str, ...]:
    """The way into a cell that `--group-by` names: an axis, or a key of its values. Raises `UsageError`."""
    known: dict[str, None] = {}
    for path in itertools.chain.from_iterable(map(_paths, _values(job))):
        if path == text:
            return tuple(text.split("."))
        known[path] = None
    near = did_you_mean(text, known)
    more = f"did you mean `{near}`?" if near else f"there is {', '.join(list(known)[:20])}"
    raise UsageError(f"--group-by {text}: no cell of the job has that ({more})")


def _values(job: Job) -> Iterator[Mapping[str, Json]]:
    for axis in job.axes:
        yield from ({axis.name: value} for value in axis.values)
    yield from job.include


def _paths(values: Mapping[str, Json], before: str = "") -> Iterator[str]:
    for name, value in values.items():
        # A dot in a key would be read as a way into it.
        if "." not in name:
            yield f"{before}{name}"
            if isinstance(value, dict):
                yield from _paths(value, f"{before}{name}.")

"""Combines axes, excludes and includes into cells, in the order they were written."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from seedream_batch.model.cell import matches
from seedream_batch.model.document import Json
from seedream_batch.model.job import Axis, Job


def count(job: Job) -> int:
    """Return an upper bound of the job's tasks without expanding it: excluded cells are counted as well."""
    cells = 1
    for axis in job.axes:
        cells *= len(axis.values)
    return (cells + len(job.include)) * job.repeat


def varying_names(job: Job) -> frozenset[str]:
    """Return the names whose values vary between tasks: axes, keys of `include`, and the sample."""
    return frozenset({"sample"}.union((axis.name for axis in job.axes), *job.include))


def cells(job: Job) -> Iterator[Mapping[str, Json]]:
    """Yield every cell of the job: a mapping from axis to value. The last axis varies fastest; `include` is last."""
    names = [axis.name for axis in job.axes]
    excluded = [_fitting(pattern, job.axes) for pattern in job.exclude if pattern.keys() <= set(names)]
    *outer, inner = [axis.values for axis in job.axes] or [()]
    for values in itertools.product(*outer):
        row = dict(zip(names, values, strict=False))  # all but the last axis, which changes at each step
        for value in inner:
            if not excluded or not _fits_one((*values, value), excluded):
                yield {**row, names[-1]: value}
    yield from job.include


_Fitting = list[tuple[int, set[int]]]
"""For each axis of a pattern, its index and the `id()`s of the values that match."""


def _fitting(pattern: Mapping[str, Json], axes: Sequence[Axis]) -> _Fitting:
    return [
        (number, {id(value) for value in axis.values if matches(value, pattern[axis.name])})
        for number, axis in enumerate(axes)
        if axis.name in pattern
    ]


def _fits_one(values: Sequence[Json], patterns: Sequence[_Fitting]) -> bool:
    for pattern in patterns:
        for number, fitting in pattern:
            if id(values[number]) not in fitting:
                break
        else:
            return True
    return False

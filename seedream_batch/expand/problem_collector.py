"""Collects problems of many cells, and reports each distinct cause once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from seedream_batch.model.cell import label
from seedream_batch.model.document import Document, Json, Path, Position, Problem, dotted
from seedream_batch.model.job import Axis, Job

MOST_CAUSES = 100
"""Distinct causes after which the expansion stops: nobody reads more at once."""


class ProblemCollector:
    """Collects problems of cells; the same cause in many cells becomes one problem with a count."""

    def __init__(self, job: Job) -> None:
        self._document: Document = job.document
        self._axes: Mapping[str, Axis] = {axis.name: axis for axis in job.axes}
        self._included = {id(cell): index for index, cell in enumerate(job.include)}
        self._samples = job.repeat > 1
        self._found: dict[tuple[Path, str], _Cause] = {}

    def add(
        self,
        path: Path,
        message: str,
        *,
        hint: str = "",
        cause: str = "",
        cell: Mapping[str, Json] | None = None,
        sample: int | None = None,
    ) -> None:
        """Add a problem at `path` of the job file, in `cell` if it concerns a cell.

        `cause` identifies the problem if the message depends on the cell. The samples of a cell, which are consecutive,
        count as one.
        """
        if path[0] == "matrix" and id(cell) in self._included:
            path = ("include", self._included[id(cell)], *path[1:])
        known = self._found.setdefault((path, cause or message), _Cause())
        if known.problem is None:
            known.problem = Problem(
                path=dotted(path),
                message=message,
                position=self._position(path, cell),
                hint=hint,
                cell=label(cell, sample if self._samples else None) if cell is not None else "",
            )
        if known.cell is None or known.cell is not cell:
            known.cells += 1
            known.cell = cell

    @property
    def full(self) -> bool:
        """Whether there are so many causes that looking for more is pointless."""
        return len(self._found) >= MOST_CAUSES

    def problems(self) -> list[Problem]:
        """Return all problems, in file order."""
        problems = [replace(cause.problem, count=cause.cells) for cause in self._found.values() if cause.problem]
        return sorted(problems, key=file_order)

    def _position(self, path: Path, cell: Mapping[str, Json] | None) -> Position:
        # A value from an axis has to be fixed there, in the job file or in the axis file.
        if len(path) == 2 and path[0] == "matrix" and cell is not None:
            axis = self._axes.get(str(path[1]))
            if axis is not None:
                for value, position in zip(axis.values, axis.positions, strict=True):
                    if value is cell.get(axis.name):
                        return position
        return self._document.position(path)


@dataclass(slots=True)
class _Cause:
    problem: Problem | None = None
    cell: Mapping[str, Json] | None = None
    cells: int = 0


def file_order(problem: Problem) -> tuple[str, int, int]:
    """Return the sort key that orders problems by their position."""
    where = problem.position
    return (where.file, where.line, where.column) if where else ("", 0, 0)

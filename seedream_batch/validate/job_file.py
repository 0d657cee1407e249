"""Checks a job file against its schema, and removes the invalid parts so that the rest can be checked."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from seedream_batch.model.document import Document, Json, Path, Problem
from seedream_batch.validate.explain import MOST_FINDINGS, Finding, findings
from seedream_batch.validate.hints import path_text
from seedream_batch.validate.schemas import accepts, schema, validator

_WHOLE = ("exclude", "include")
"""Lists whose entries are removed as a whole: part of a pattern would match more than was meant."""


def job_problems(document: Document) -> list[Problem]:
    """Return everything that the job schema refuses in a job file, in file order."""
    return _problems(document, _findings(document))


def checked_job(document: Document) -> tuple[list[Problem], dict[str, Json], set[str]]:
    """Return the problems, the job without its invalid parts, and the sections that parts were removed from.

    The rest of a job file can then be checked further, so that all its mistakes are reported at once.
    """
    refused = _findings(document)
    if not isinstance(document.value, dict) or len(refused) >= MOST_FINDINGS // 2:
        # The search for problems may have ended early, so the rest cannot be trusted.
        return _problems(document, refused), {}, {"matrix", "request"}
    if not refused:
        return [], document.value, set()
    value = copy.deepcopy(document.value)
    # Remove from the back, so that the indexes of earlier list entries stay valid.
    for path in sorted({_removed_path(each.path) for each in refused}, key=_order, reverse=True):
        _remove(value, path)
    matrix = value.get("matrix")
    if isinstance(matrix, dict):
        value["matrix"] = {name: values for name, values in matrix.items() if values not in ([], {})}
    return _problems(document, refused), value, {str(each.path[0]) for each in refused if each.path}


def _findings(document: Document) -> list[Finding]:
    if accepts("job")(document.value):
        # Most job files are valid: this avoids importing what explains mistakes.
        return []
    return findings(validator("job").iter_errors(document.value), document.value, schema("job"))


def _problems(document: Document, refused: Sequence[Finding]) -> list[Problem]:
    problems = []
    for each in refused:
        position = document.position(each.path, key=each.key)
        problem = Problem(path_text(each.path), each.message, position, each.hint)
        problems.append((position.line, position.column, problem))
    problems.sort(key=lambda each: each[:2])
    return [problem for _, _, problem in problems]


def _removed_path(path: Path) -> Path:
    if path and path[0] in _WHOLE:
        return path[:2]
    # An invalid part makes the whole axis unusable, unless it is one of its values.
    if path and path[0] == "matrix" and len(path) > 2 and not isinstance(path[2], int):
        return path[:2]
    return path[:3] if path and path[0] == "matrix" else path


def _order(path: Path) -> list[tuple[int, int, str]]:
    return [(1, step, "") if isinstance(step, int) else (0, 0, step) for step in path]


def _remove(value: Json, path: Path) -> None:
    at = value
    for step in path[:-1]:
        try:
            at = at[step]
        except (KeyError, IndexError, TypeError):
            return
    if not path:
        value.clear()
    elif isinstance(at, dict):
        at.pop(path[-1], None)
    elif isinstance(at, list) and isinstance(path[-1], int) and path[-1] < len(at):
        del at[path[-1]]

"""Checks that a schema cannot make: names that refer to each other across a job file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

from seedream_batch.expand.expansion import Expansion
from seedream_batch.model.cell import fits_any, has_value, name_of
from seedream_batch.model.document import Document, Json, Path, Problem, dotted
from seedream_batch.model.job import Axis
from seedream_batch.validate.hints import did_you_mean
from seedream_batch.validate.schemas import schema_text

RESERVED = ("sample", "index", "request")
"""Names that every template has, so that no axis or variable may use them."""

PATH_NAMES = ("index", "size", "resolution", "request")
"""Names that only `output.path` has, in addition to the axes and variables."""


class Written:
    """A job file as it was written, and the parts refused by the parser (`read`) and by the schema (`refused`)."""

    def __init__(self, document: Document, read: Iterable[Problem], refused: Iterable[Problem]) -> None:
        self.document = document
        self.value: Mapping[str, Json] = document.value if isinstance(document.value, dict) else {}
        self._refused = {problem.path for problem in refused}
        self._reported = self._refused | {problem.path for problem in read}
        self._with_refused = _ancestors(self._refused)
        self._with_reported = _ancestors(self._reported)

    def section(self, name: str) -> Mapping[str, Json]:
        """Return a section that is a mapping; empty if it is not one."""
        value = self.value.get(name)
        return value if isinstance(value, dict) else {}

    def entries(self, name: str) -> Sequence[Json]:
        """Return the entries of a section that is a list; empty if it is not one."""
        value = self.value.get(name)
        return value if isinstance(value, list) else ()

    def is_whole(self, path: Path) -> bool:
        """Return whether neither the value at `path` nor a part of it has a problem."""
        return dotted(path) not in self._with_reported

    def kept(self, path: Path) -> list[int]:
        """Return the indexes of the list entries that the schema accepts."""
        value: Json = self.value
        for step in path:
            value = value[step]
        return [index for index in range(len(value)) if dotted((*path, index)) not in self._with_refused]

    @property
    def knows_names(self) -> bool:
        """Whether all names that the job gives to its templates can be known."""
        if any(path in self._reported for path in ("matrix", "vars", "include")):
            return False
        # A misspelt section may define some of them.
        return not any(isinstance(value, dict | list) for key, value in self.value.items() if key not in _sections())


def _ancestors(paths: Iterable[str]) -> set[str]:
    """Return the paths and all their parents."""
    return {path[:end] for path in paths for end in [*(cut.start() for cut in _STEP.finditer(path)), len(path)]}


_STEP = re.compile(r"[.\[]")


@cache
def _sections() -> frozenset[str]:
    return frozenset(json.loads(schema_text("job"))["properties"])


def first_causes(document_problems: Sequence[Problem], schema_problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems without those that only follow from another one.

    A misspelt key is not reported as missing too, and neither is what is in the first of two sections with the same
    name. A number that could not be read is not reported as a wrong value too.
    """
    misspelt = {
        (_parent(problem.path), problem.hint) for problem in schema_problems if problem.message == "unknown key"
    }
    twice = {problem.path for problem in document_problems if problem.message.startswith("repeated key")}
    reported = {problem.path for problem in document_problems} - twice
    causes = list(document_problems)
    for problem in schema_problems:
        parent = _parent(problem.path)
        name = problem.path.removeprefix(f"{parent}.")
        if problem.path in reported:
            continue
        if problem.message == "is required" and (parent in twice or (parent, f"did you mean `{name}`?") in misspelt):
            continue
        causes.append(problem)
    return causes


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def name_problems(written: Written) -> Iterator[Problem]:
    """Yield a problem for each axis or variable whose name is reserved or used twice."""
    taken = "is a built-in name in templates; choose another"
    axes = written.section("matrix")
    for section, names in (("matrix", axes), ("vars", written.section("vars"))):
        for name in names:
            if name in RESERVED:
                yield _problem_at(written.document, (section, name), f"`{name}` {taken}", key=True)
            elif section == "vars" and name in axes:
                message = f"`{name}` is already an axis; choose another name"
                yield _problem_at(written.document, (section, name), message, key=True)
    for index, cell in enumerate(written.entries("include")):
        for name in cell if isinstance(cell, dict) else ():
            if name in RESERVED:
                yield _problem_at(written.document, ("include", index, name), f"`{name}` {taken}", key=True)


def exclude_problems(
    written: Written, exclude: Sequence[Mapping[str, Json]], axes: Mapping[str, Axis]
) -> Iterator[Problem]:
    """Yield a problem for each exclude that names no axis or matches no cell, which would buy unwanted images.

    `exclude` has the entries that the schema accepts.
    """
    document = written.document
    known = list(written.section("matrix"))
    for number, pattern in zip(written.kept(("exclude",)) if exclude else (), exclude, strict=True):
        for name, wanted in pattern.items():
            path: Path = ("exclude", number, name)
            if name not in known:
                if known and written.knows_names:
                    hint = did_you_mean(name, known)
                    hint = f"did you mean `{hint}`?" if hint else f"axes: {', '.join(known)}"
                    yield _problem_at(document, path, f"no axis `{name}`", hint, key=True)
                continue
            axis = axes.get(name)
            if axis is None or not written.is_whole(("matrix", name)):
                continue  # some of its values could not be read, which is already reported
            several = isinstance(wanted, list) and not has_value(axis, wanted)
            for item, at in [(item, (*path, i)) for i, item in enumerate(wanted)] if several else [(wanted, path)]:
                if not fits_any(axis, item):
                    yield _problem_at(
                        document, at, f"no value of the axis `{name}` is {_shown(item)}", _values(axis, item)
                    )


def template_problems(expansion: Expansion, written: Written) -> Iterator[Problem]:
    """Yield a problem for each template that does not compile or reads an undefined name."""
    document = written.document
    for error in expansion.errors():
        yield _problem_at(document, error.path, error.message, error.hint)
    if not written.knows_names:
        return
    given = {"sample", *written.section("matrix"), *written.section("vars")}
    for cell in written.entries("include"):
        given.update(cell if isinstance(cell, dict) else ())
    for path, names in expansion.names():
        known = given | (set(PATH_NAMES) if path[0] == "output" else set())
        for name in sorted(names - known):
            hint = did_you_mean(name, sorted(known))
            if name == "index":
                hint = "`index` is only available in output.path"
            else:
                hint = f"did you mean `{hint}`?" if hint else f"available: {', '.join(sorted(known))}"
            yield _problem_at(document, path, f"`{name}` is not defined", hint)


def _values(axis: Axis, wanted: Json) -> str:
    names = [name_of(value) for value in axis.values[:1000]]
    near = did_you_mean(name_of(wanted), names)
    if near:
        return f"did you mean {near}?"
    more = ", ..." if len(names) > 12 else ""
    return f"available: {', '.join(names[:12])}{more}"


def _shown(value: Json) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {name_of(item)}" for key, item in value.items()) + "}"
    return name_of(value)


def _problem_at(document: Document, path: Path, message: str, hint: str = "", *, key: bool = False) -> Problem:
    return Problem(dotted(path), message, document.position(path, key=key), hint)

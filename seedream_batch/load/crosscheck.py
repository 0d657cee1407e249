"""What a schema cannot see: names that refer to each other across a job file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from seedream_batch.expand.matrix import fits_any, name_of
from seedream_batch.expand.tasks import Expansion
from seedream_batch.model.document import Document, Json, Path, Problem, dotted
from seedream_batch.model.job import Axis
from seedream_batch.validate import did_you_mean

RESERVED = ("sample", "index", "request")
"""Names that templates have anyway, so that no axis or variable may take them."""

PATH_NAMES = ("index", "size", "resolution", "request")
"""Names that only `output.path` has, besides the axes and variables."""


def name_problems(value: Mapping[str, Json], document: Document) -> Iterator[Problem]:
    """Axes and variables that take a name twice, or one that is taken."""
    axes = value.get("matrix")
    variables = value.get("vars")
    for section, names in (("matrix", axes), ("vars", variables)):
        for name in names if isinstance(names, dict) else ():
            if name in RESERVED:
                yield _at(document, (section, name), f"`{name}` is a name that templates have anyway; choose another")
            elif section == "vars" and isinstance(axes, dict) and name in axes:
                yield _at(
                    document, (section, name), f"`{name}` is an axis already; a template could not tell them apart"
                )


def exclude_problems(value: Mapping[str, Json], document: Document, axes: Mapping[str, Axis]) -> Iterator[Problem]:
    """Excludes that name no axis, or that no cell can match: a slip there buys pictures that nobody wanted."""
    known = list(value["matrix"]) if isinstance(value.get("matrix"), dict) else []
    for number, pattern in enumerate(value.get("exclude", ())):
        for name, wanted in pattern.items():
            path: Path = ("exclude", number, name)
            if name not in known:
                hint = did_you_mean(name, known)
                hint = f"did you mean `{hint}`?" if hint else f"the axes are {', '.join(known)}"
                yield _at(document, path, f"there is no axis `{name}`", hint, key=True)
                continue
            axis = axes.get(name)
            if axis is None:
                continue  # its file could not be read, which is told already
            several = isinstance(wanted, list) and wanted not in list(axis.values)
            for one, spot in [(item, (*path, i)) for i, item in enumerate(wanted)] if several else [(wanted, path)]:
                if not fits_any(axis, one):
                    yield _at(document, spot, f"no value of the axis `{name}` is {_shown(one)}", _values(axis, one))


def template_problems(
    expansion: Expansion, value: Mapping[str, Json], document: Document, include: Iterable[Mapping[str, Json]]
) -> Iterator[Problem]:
    """Templates that do not compile, or that read names nobody gives."""
    for error in expansion.errors():
        yield _at(document, error.path, error.message, error.hint)
    given = {"sample"}
    for section in ("matrix", "vars"):
        names = value.get(section)
        given.update(names if isinstance(names, dict) else ())
    for cell in include:
        given.update(cell)
    for path, names in expansion.names():
        known = given | (set(PATH_NAMES) if path[0] == "output" else set())
        for name in sorted(names - known):
            hint = did_you_mean(name, sorted(known))
            if name == "index":
                hint = "`index` is only known in output.path"
            else:
                hint = f"did you mean `{hint}`?" if hint else f"there is {', '.join(sorted(known))}"
            yield _at(document, path, f"`{name}` is not defined", hint)


def _values(axis: Axis, wanted: Json) -> str:
    names = [name_of(one) for one in axis.values]
    near = did_you_mean(name_of(wanted), names)
    if near:
        return f"did you mean {near}?"
    more = ", ..." if len(names) > 12 else ""
    return f"it has {', '.join(names[:12])}{more}"


def _shown(value: Json) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {name_of(one)}" for key, one in value.items()) + "}"
    return name_of(value)


def _at(document: Document, path: Path, message: str, hint: str = "", *, key: bool = False) -> Problem:
    return Problem(dotted(path), message, document.position(path, key=key), hint)

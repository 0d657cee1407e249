"""Loads a job file: reads it, checks everything that can be checked, and only then returns a job."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from seedream_batch.document.decoding import decoded, no_control
from seedream_batch.document.tables import parse_table
from seedream_batch.document.yaml_loader import as_written, parse_yaml
from seedream_batch.errors import InvalidJob, StorageError, UsageError
from seedream_batch.expand.expansion import Expansion
from seedream_batch.expand.matrix import count
from seedream_batch.expand.problem_collector import MOST_CAUSES, file_order
from seedream_batch.expand.request_variants import BadReference, ResolveReference
from seedream_batch.files.local_folder import resolved
from seedream_batch.files.references import BadReferenceImage, load_reference, read_inside
from seedream_batch.jobfile.addresses import notify_problems, server, server_problems, store_problems
from seedream_batch.jobfile.build import build_job
from seedream_batch.jobfile.cross_checks import (
    Written,
    exclude_problems,
    first_causes,
    name_problems,
    template_problems,
)
from seedream_batch.jobfile.units import limit_problems, without
from seedream_batch.model.document import Document, Json, Position, Problem, Table, dotted
from seedream_batch.model.job import Axis, Job, OtherReadings, Reference
from seedream_batch.model.locations import MANIFEST
from seedream_batch.model.task import TaskSpec
from seedream_batch.model.text import control_in, encodable, normal
from seedream_batch.templates.engine import TemplateEngine, TemplateError
from seedream_batch.validate.job_file import checked_job
from seedream_batch.validate.request_schema import RequestSchema

DEFAULT_MAX_TASKS = 1_000_000
"""A job with more tasks is refused before it is expanded, unless the caller raises the limit."""

MAX_JOB_FILE = 64 * 1024 * 1024


class LoadedJob:
    """A job whose file is valid. Its tasks are expanded and checked each time `tasks()` is read."""

    def __init__(self, job: Job, expansion: Expansion, reading: Reading) -> None:
        self.job = job
        self.expansion = expansion
        self._reading = reading

    def tasks(self) -> Iterator[TaskSpec]:
        """Yield every task. Raises `InvalidJob` at the end if any cell has a problem, so read it in a transaction."""
        return iter(self.expansion)

    @property
    def references(self) -> Mapping[str, Reference]:
        """The reference images of the tasks read so far, by SHA-256."""
        return self.expansion.references

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of every file read for the tasks so far, by its path relative to the job file's folder.

        The job file itself has an empty path.
        """
        references = {image.text: image.sha256 for image in self.references.values() if image.file is not None}
        return {**self._reading.files, **references}

    def into(self, folder: str | Path) -> LoadedJob:
        """Return the same job with another output folder, which also holds its manifest."""
        output = resolved(Path(folder))
        job = dataclasses.replace(self.job, output_dir=output, manifest=output / MANIFEST, store=None)
        return LoadedJob(job, self.expansion, self._reading)

    def on(self, url: str, *, also: str = "") -> LoadedJob:
        """Return the same job with its manifest at a `postgresql://` URL. Raises `UsageError` for any other URL.

        `also` is appended to the job's name in the name of its schema.
        """
        try:
            place = server(url, f"{self.job.name}{also}")
        except ValueError as error:
            raise UsageError(f"--manifest is not a PostgreSQL URL: {error}") from None
        return LoadedJob(dataclasses.replace(self.job, manifest=place), self.expansion, self._reading)

    def check(self) -> int:
        """Expand every task once and return their number. Raises `InvalidJob` with every problem of every cell."""
        return sum(1 for _ in self.expansion)


def load_job(path: str | Path, *, max_tasks: int = DEFAULT_MAX_TASKS) -> LoadedJob:
    """Load the job in a file. Raises `InvalidJob` with every problem that can be found.

    Expands the cells only if the file has problems that do not affect them, to report the problems of the cells as
    well. Also raises `UsageError` and `StorageError` if the file cannot be read.
    """
    file = Path(path)
    document_problems: list[Problem] = []
    reading = Reading(file.parent)
    data = _read(file)
    reading.files[""] = hashlib.sha256(data).hexdigest()
    document = parse_yaml(data, str(path), document_problems)
    schema_problems, value, _ = checked_job(document)
    problems = first_causes(document_problems, schema_problems)
    # Take names from the file as it was written: a name stays known if its value was refused.
    written = Written(document, document_problems, schema_problems)
    limits = list(limit_problems(value, document))
    problems += limits
    value = without(value, limits)
    problems += name_problems(written)
    if "name" not in value and not encodable(file.stem):
        message = "is required, because the name of the job file is not valid UTF-8"
        problems.append(Problem("name", message, document.position(), "write `name: NAME`, or rename the file"))
    value = _checked_addresses(value, document, file.parent, problems)
    axes = _axes(value, written, reading, problems)
    value, readings = _normalise_cells(value, written, problems)
    request, earlier_prompt = _request(value, document, reading, problems)
    readings = dataclasses.replace(readings, earlier_prompt=earlier_prompt)
    job = build_job(value, document, resolved(file), tuple(axes.values()), request, readings)
    engine = TemplateEngine(_includes(reading))
    references = _References(file.parent)
    expansion = Expansion(job, rules=RequestSchema(), engine=engine, resolve=references)
    problems += islice(exclude_problems(written, job.exclude, axes), MOST_CAUSES)
    problems += islice(template_problems(expansion, written), MOST_CAUSES)
    if too_many := _too_many_tasks(job, max_tasks, document):
        problems.append(too_many)
    elif problems and job.axes and written.knows_names and not any(_affects_cells(problem) for problem in problems):
        problems += _cell_problems(expansion)
    elif problems:
        problems += _reference_problems(request, references, document)
    if problems:
        raise InvalidJob(sorted(problems, key=file_order))
    return LoadedJob(job, expansion, reading)


def _checked_addresses(
    value: dict[str, Json], document: Document, folder: Path, problems: list[Problem]
) -> dict[str, Json]:
    """Check webhook, database and object store; return the job without the addresses that have problems."""
    problems += notify_problems(value, document)
    if servers := list(server_problems(value, document)):
        problems += servers
        value = {key: item for key, item in value.items() if key != "manifest"}
    if stores := list(store_problems(value, document, folder)):
        problems += stores
        value = {**value, "output": {key: item for key, item in value.get("output", {}).items() if key != "dir"}}
    return value


def _too_many_tasks(job: Job, max_tasks: int, document: Document) -> Problem | None:
    tasks = count(job)
    if tasks <= max_tasks:
        return None
    less = " before `exclude`" if job.exclude else ""
    message = f"expands to {tasks:,} tasks{less}; at most {max_tasks:,} are allowed"
    return Problem("matrix", message, document.position(("matrix",)), "if you want that many, raise --max-tasks")


def _read(file: Path) -> bytes:
    try:
        if file.is_dir():
            raise UsageError(f"{file} is a folder; name the job file in it")
        # A pipe without a writer and some devices would be read forever.
        if not stat.S_ISREG(file.stat().st_mode):
            raise UsageError(f"{file} is not a regular file")
        if file.stat().st_size > MAX_JOB_FILE:
            raise StorageError(f"{file} is larger than {MAX_JOB_FILE:,} bytes")
        return file.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"job file {file} not found{_neighbours(file)}") from None
    except OSError as error:
        wrong = error.errno in {errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR}
        raise (UsageError if wrong else StorageError)(f"cannot read {file}: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"{str(file)!r} is not a valid path: {error}") from None


def _neighbours(file: Path) -> str:
    try:
        files = [entry.name for entry in file.parent.iterdir() if entry.is_file()]
        # Hidden files belong to other tools.
        names = sorted(name for name in files if name.endswith((".yaml", ".yml")) and not name.startswith("."))
    except OSError:
        return ""
    return f"; job files in {file.parent}/: {', '.join(names[:8])}" if names else ""


class Reading:
    """Reads the files that a job names, and records their SHA-256 by path; that of the job file is empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[str, str] = {}

    def read(self, name: str, **limits: int) -> bytes:
        """Return the bytes of a file in the folder of the job file. Raises `StorageError`."""
        data = read_inside(self._folder, name, **limits)
        self.files[name] = hashlib.sha256(data).hexdigest()
        return data


def _axes(value: Mapping[str, Json], written: Written, reading: Reading, problems: list[Problem]) -> dict[str, Axis]:
    document = written.document
    axes: dict[str, Axis] = {}
    for name, values in value.get("matrix", {}).items():
        path = ("matrix", name)
        if isinstance(values, list):
            axes[name] = _written_axis(name, values, written, problems)
            continue
        shown = _shown(document.file, values["file"])
        try:
            table = parse_table(reading.read(values["file"]), shown)
        except StorageError as error:
            problems.append(Problem(dotted((*path, "file")), str(error), document.position((*path, "file"))))
        except InvalidJob as error:
            problems += error.problems
        else:
            positions = [Position(table.file, line, column) for line, column in table.positions]
            column = _column(table, name)
            axis_values = column(table.values)
            earlier = {id(axis_values[index]): column(read) for index, read in table.earlier.items()}
            prints = {id(axis_values[index]): read for index, read in table.written.items()}
            axes[name] = Axis(name, axis_values, positions, table.typed, earlier, prints)
    return axes


def _written_axis(name: str, values: list[Json], written: Written, problems: list[Problem]) -> Axis:
    """Return the axis whose values are written in the job file itself."""
    path = ("matrix", name)
    indexes = written.kept(path)
    positions = [written.document.position((*path, index)) for index in indexes]
    plain = [normal(value) for value in values]
    for value, index, position in zip(values, indexes, positions, strict=True):
        if control := control_in(value):
            problems.append(Problem(dotted((*path, index)), no_control(control), position, "remove it"))
    earlier = {id(new): (value,) for new, value in zip(plain, values, strict=True) if new is not value}
    prints = as_written(written.document, path)
    return Axis(
        name, plain, positions,
        earlier=earlier,
        written={id(new): normal(prints[index]) for new, index in zip(plain, indexes, strict=True) if index in prints},
    )  # fmt: skip


def _normalise_cells(
    value: Mapping[str, Json], written: Written, problems: list[Problem]
) -> tuple[dict[str, Json], OtherReadings]:
    """Return the job with the texts of `include` and `exclude` normalised, and its other readings."""
    document = written.document
    cells = list(value.get("include", ()))
    indexes = written.kept(("include",)) if cells else []
    plain = [normal(cell) for cell in cells]
    for cell, index in zip(cells, indexes, strict=True):
        if control := control_in(cell):
            path = ("include", index)
            problems.append(Problem(dotted(path), no_control(control), document.position(path), "remove it"))
    prints = as_written(document, ("include",)) if cells else {}
    readings = OtherReadings(
        earlier_include={id(new): cell for new, cell in zip(plain, cells, strict=True) if new is not cell},
        written_include={id(new): prints[index] for new, index in zip(plain, indexes, strict=True) if index in prints},
        written_vars={str(name): value for name, value in as_written(document, ("vars",)).items()},
    )
    return {**value, "include": plain, "exclude": normal(list(value.get("exclude", ())))}, readings


def _column(table: Table, name: str) -> Callable[[Sequence[Json]], Sequence[Json]]:
    """Return a function from rows to the values of an axis.

    If a csv or tsv file has only one column, named like the axis and like a field of the request, the values are the
    texts of that column; otherwise the rows themselves.
    """
    of_field = (name,) in RequestSchema().field_types
    if of_field and not table.typed and all(isinstance(row, dict) and [*row] == [name] for row in table.values):
        return lambda rows: [row[name] for row in rows]
    return lambda rows: rows


def _request(
    value: Mapping[str, Json], document: Document, reading: Reading, problems: list[Problem]
) -> tuple[Mapping[str, Json], str]:
    """Return the request with the prompt from its file, and an alternative text of that prompt.

    The alternative has CRLF line ends, which earlier versions may have sent; empty if there is none.
    """
    request = dict(value.get("request", {}))
    prompt = request.get("prompt")
    if not isinstance(prompt, dict):
        return request, ""
    del request["prompt"]
    if "file" not in prompt:
        return request, ""  # refused by the schema
    path = ("request", "prompt", "file")
    try:
        text = request["prompt"] = decoded(reading.read(prompt["file"]), _shown(document.file, prompt["file"]))
    except StorageError as error:
        problems.append(Problem(dotted(path), str(error), document.position(path)))
    except InvalidJob as error:
        problems += error.problems
    else:
        # Jinja turns all line ends into line feeds, but a text without markup never passed through it.
        constant = not any(mark in text for mark in ("{{", "{%", "{#"))
        return request, text.replace("\n", "\r\n") if constant and "\n" in text.strip() else ""
    return request, ""


class _References:
    """Loads each reference image once, however many cells use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Reference | BadReference] = {}

    def __call__(self, text: str) -> Reference:
        known = self._known.get(text)
        if known is None:
            try:
                known = load_reference(text, self._folder)
            except (BadReferenceImage, StorageError) as error:
                known = BadReference(str(error))
            self._known[text] = known
        if isinstance(known, BadReference):
            # A new exception each time: a re-raised one keeps every frame that it has passed.
            raise BadReference(str(known))
        return known


def _includes(reading: Reading) -> Callable[[str], str]:
    def read(name: str) -> str:
        try:
            return decoded(reading.read(name, limit=1024 * 1024), name)
        except (StorageError, InvalidJob) as error:
            raise TemplateError(f"include: {error}") from error

    return read


def _cell_problems(expansion: Expansion) -> tuple[Problem, ...]:
    try:
        for _ in expansion:
            pass
    except InvalidJob as error:
        return error.problems
    return ()


def _reference_problems(
    request: Mapping[str, Json], resolve: ResolveReference, document: Document
) -> Iterator[Problem]:
    """Yield problems of reference images that every cell has, if the cells cannot be expanded."""
    urls = request.get("image_urls")
    for index, text in enumerate(urls if isinstance(urls, list) else ()):
        if isinstance(text, str) and not _ELSEWHERE.match(text):
            try:
                resolve(text)
            except BadReference as error:
                path = ("request", "image_urls", index)
                yield Problem(dotted(path), str(error), document.position(path), error.hint)


_ELSEWHERE = re.compile(r"\s*https?://|.*\{[{%#]", re.DOTALL | re.IGNORECASE)


def _affects_cells(problem: Problem) -> bool:
    """Return whether a problem affects the cells, so that their problems would repeat or hide it."""
    if _AXIS_VALUE.match(problem.path):
        return False  # the other values of the axis still give valid cells
    return problem.path == "" or problem.path.split(".")[0].split("[")[0] in _CELL_SECTIONS


_AXIS_VALUE = re.compile(r"matrix\.[A-Za-z0-9_]+\[")
_CELL_SECTIONS = {"matrix", "request", "vars", "include", "exclude", "repeat", "output"}


def _shown(job_file: str, relative: str) -> str:
    """Return the path of a file named in a job as it is shown: relative to how the user wrote the job's path."""
    return os.path.normpath(os.path.join(os.path.dirname(job_file), relative))  # noqa: PTH118, PTH120 - text, no file

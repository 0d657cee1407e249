"""Loading a job file: read, check everything that can be checked, and only then give a job."""

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

from seedream_batch.document import parse_table, parse_yaml
from seedream_batch.document.text import decoded, encodable, no_control
from seedream_batch.document.yaml_loader import as_written
from seedream_batch.errors import InvalidJob, StorageError, UsageError
from seedream_batch.expand.expansion import BadReference, Expansion, ResolveReference
from seedream_batch.expand.matrix import count
from seedream_batch.expand.problem_collector import MOST_CAUSES, file_order
from seedream_batch.files.local_folder import resolved
from seedream_batch.files.references import BadReferenceImage, load_reference, read_inside
from seedream_batch.jobfile.build import build_job
from seedream_batch.jobfile.cross_checks import (
    Written,
    exclude_problems,
    first_causes,
    name_problems,
    template_problems,
)
from seedream_batch.jobfile.object_store_url import store_problems
from seedream_batch.jobfile.postgres_url import server, server_problems
from seedream_batch.jobfile.units import limit_problems, without
from seedream_batch.jobfile.webhook_url import notify_problems
from seedream_batch.model.document import Document, Json, Position, Problem, Table, dotted
from seedream_batch.model.job import Axis, Job, OtherReadings, Reference
from seedream_batch.model.locations import MANIFEST
from seedream_batch.model.task import TaskSpec
from seedream_batch.model.text import control_in, normal
from seedream_batch.templates.engine import TemplateEngine, TemplateError
from seedream_batch.validate import RequestSchema, checked_job

DEFAULT_MAX_TASKS = 1_000_000
"""A job of more tasks is refused before it is expanded, unless the caller says otherwise."""

MAX_JOB_FILE = 64 * 1024 * 1024


class LoadedJob:
    """A job whose file is in order. Its tasks are made anew, and checked, each time `tasks()` is read."""

    def __init__(self, job: Job, expansion: Expansion, reading: Reading) -> None:
        self.job = job
        self.expansion = expansion
        self._reading = reading

    def tasks(self) -> Iterator[TaskSpec]:
        """Every task; at the end raises `InvalidJob` if any cell has a problem, so read it within a transaction."""
        return iter(self.expansion)

    @property
    def references(self) -> Mapping[str, Reference]:
        """The reference images of the tasks read so far, by SHA-256."""
        return self.expansion.references

    def files(self) -> dict[str, str]:
        """The files that were read for the tasks read so far: their SHA-256 by their path from the job file's folder.

        The job file itself has no path.
        """
        references = {one.text: one.sha256 for one in self.references.values() if one.file is not None}
        return {**self._reading.files, **references}

    def into(self, folder: str | Path) -> LoadedJob:
        """The same job with another output folder, which has its manifest in it."""
        output = resolved(Path(folder))
        job = dataclasses.replace(self.job, output_dir=output, manifest=output / MANIFEST, store=None)
        return LoadedJob(job, self.expansion, self._reading)

    def on(self, url: str, *, also: str = "") -> LoadedJob:
        """The same job with its manifest on a server, at a `postgresql://` URL. Raises `UsageError` if it is none.

        `also` goes behind the name of the job, in that of its schema.
        """
        try:
            place = server(url, f"{self.job.name}{also}")
        except ValueError as error:
            raise UsageError(f"--manifest is no address of a manifest: {error}") from None
        return LoadedJob(dataclasses.replace(self.job, manifest=place), self.expansion, self._reading)

    def check(self) -> int:
        """Makes every task once; how many there are. Raises `InvalidJob` with every problem of every cell."""
        return sum(1 for _ in self.expansion)


def load_job(path: str | Path, *, max_tasks: int = DEFAULT_MAX_TASKS) -> LoadedJob:
    """The job in a file. Raises `InvalidJob` with every problem that can be found without expanding it.

    Where the file has problems that leave its cells intact, those of the cells are told, too.
    """
    file = Path(path)
    document_problems: list[Problem] = []
    reading = Reading(file.parent)
    document = parse_yaml(reading.job_file(_read(file)), str(path), document_problems)
    schema_problems, value, _ = checked_job(document)
    problems = first_causes(document_problems, schema_problems)
    # Names in the file as it was written: what was refused for another reason is still a known name.
    written = Written(document, document_problems, schema_problems)
    limits = list(limit_problems(value, document))
    problems += limits
    value = without(value, limits)
    problems += name_problems(written)
    if "name" not in value and not encodable(file.stem):
        told = "is required, since the name of the job file is not UTF-8"
        problems.append(Problem("name", told, document.position(), "write `name: NAME`, or rename the file"))
    problems += notify_problems(value, document)
    if servers := list(server_problems(value, document)):
        problems += servers
        value = {key: one for key, one in value.items() if key != "manifest"}
    if stores := list(store_problems(value, document, file.parent)):
        problems += stores
        value = {**value, "output": {key: one for key, one in value.get("output", {}).items() if key != "dir"}}
    axes = _axes(value, written, reading, problems)
    value, readings = _with_plain_cells(value, written, problems)
    request, earlier_prompt = _request(value, document, reading, problems)
    readings = dataclasses.replace(readings, earlier_prompt=earlier_prompt)
    job = build_job(value, document, resolved(file), tuple(axes.values()), request, readings)
    engine = TemplateEngine(_includes(reading))
    references = _References(file.parent)
    expansion = Expansion(job, rules=RequestSchema(), engine=engine, resolve=references)
    problems += islice(exclude_problems(written, job.exclude, axes), MOST_CAUSES)
    problems += islice(template_problems(expansion, written), MOST_CAUSES)
    tasks = count(job)
    if tasks > max_tasks:
        less = " before `exclude`" if job.exclude else ""
        told = f"expands to {tasks:,} tasks{less}; at most {max_tasks:,} are allowed"
        problems.append(Problem("matrix", told, document.position(("matrix",)), "raise --max-tasks if that is meant"))
    elif problems and job.axes and written.knows_names and not any(_shapes_cells(one) for one in problems):
        problems += _cell_problems(expansion)
    elif problems:
        problems += _reference_problems(request, references, document)
    if problems:
        raise InvalidJob(sorted(problems, key=file_order))
    return LoadedJob(job, expansion, reading)


def _read(file: Path) -> bytes:
    try:
        if file.is_dir():
            raise UsageError(f"{file} is a folder; name the job file in it")
        # A pipe without a writer, and some devices, would be read for ever.
        if not stat.S_ISREG(file.stat().st_mode):
            raise UsageError(f"{file} is no ordinary file; write the job into one")
        if file.stat().st_size > MAX_JOB_FILE:
            raise StorageError(f"{file} is larger than {MAX_JOB_FILE:,} bytes")
        return file.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no job file {file}{_neighbours(file)}") from None
    except OSError as error:
        wrong = error.errno in {errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR}
        raise (UsageError if wrong else StorageError)(f"{file} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"{str(file)!r} is no usable path: {error}") from None


def _neighbours(file: Path) -> str:
    try:
        files = [one.name for one in file.parent.iterdir() if one.is_file()]
        # What is hidden there is of other tools.
        names = sorted(name for name in files if name.endswith((".yaml", ".yml")) and not name.startswith("."))
    except OSError:
        return ""
    return f"; in {file.parent}/ there is {', '.join(names[:8])}" if names else ""


class Reading:
    """Reads the files that a job names, and remembers what was in them: their SHA-256 by their path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[str, str] = {}

    def job_file(self, data: bytes) -> bytes:
        """Notes the job file itself."""
        self.files[""] = hashlib.sha256(data).hexdigest()
        return data

    def read(self, name: str, **limits: int) -> bytes:
        """The bytes of a file in the folder of the job file. Raises `StorageError`."""
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
            places = [Position(table.file, line, column) for line, column in table.positions]
            column = _column(table, name)
            found = column(table.values)
            earlier = {id(found[index]): column(read) for index, read in table.earlier.items()}
            prints = {id(found[index]): read for index, read in table.written.items()}
            axes[name] = Axis(name, found, places, table.typed, earlier, prints)
    return axes


def _written_axis(name: str, values: list[Json], written: Written, problems: list[Problem]) -> Axis:
    """The axis whose values the job file itself has."""
    path = ("matrix", name)
    kept = written.kept(path)
    places = [written.document.position((*path, index)) for index in kept]
    plain = [normal(value) for value in values]
    for value, index, place in zip(values, kept, places, strict=True):
        if control := control_in(value):
            problems.append(Problem(dotted((*path, index)), no_control(control), place, "remove it"))
    earlier = {id(new): (value,) for new, value in zip(plain, values, strict=True) if new is not value}
    prints = as_written(written.document, path)
    return Axis(
        name, plain, places,
        earlier=earlier,
        written={id(new): normal(prints[index]) for new, index in zip(plain, kept, strict=True) if index in prints},
    )  # fmt: skip


def _with_plain_cells(
    value: Mapping[str, Json], written: Written, problems: list[Problem]
) -> tuple[dict[str, Json], OtherReadings]:
    """The job with the texts in `include` and `exclude` as those of axes, and what it says in other readings."""
    document = written.document
    cells = list(value.get("include", ()))
    kept = written.kept(("include",)) if cells else []
    plain = [normal(cell) for cell in cells]
    for cell, index in zip(cells, kept, strict=True):
        if control := control_in(cell):
            path = ("include", index)
            problems.append(Problem(dotted(path), no_control(control), document.position(path), "remove it"))
    prints = as_written(document, ("include",)) if cells else {}
    readings = OtherReadings(
        earlier_include={id(new): cell for new, cell in zip(plain, cells, strict=True) if new is not cell},
        written_include={id(new): prints[index] for new, index in zip(plain, kept, strict=True) if index in prints},
        written_vars={str(name): one for name, one in as_written(document, ("vars",)).items()},
    )
    return {**value, "include": plain, "exclude": normal(list(value.get("exclude", ())))}, readings


def _column(table: Table, name: str) -> Callable[[Sequence[Json]], Sequence[Json]]:
    """What makes rows the values of an axis: the texts of a csv or tsv file with only the column of a field's name."""
    of_field = (name,) in RequestSchema().field_types
    if of_field and not table.typed and all(isinstance(row, dict) and [*row] == [name] for row in table.values):
        return lambda rows: [row[name] for row in rows]
    return lambda rows: rows


def _request(
    value: Mapping[str, Json], document: Document, reading: Reading, problems: list[Problem]
) -> tuple[Mapping[str, Json], str]:
    """The request with the prompt from its file; and that prompt with other line ends, where those would be sent."""
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
        # Jinja makes line feeds of all line ends, and this is no template to it.
        constant = not any(mark in text for mark in ("{{", "{%", "{#"))
        return request, text.replace("\n", "\r\n") if constant and "\n" in text.strip() else ""
    return request, ""


class _References:
    """Looks each reference image up once, however many cells use it."""

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
            # Anew each time: an exception that is raised again keeps every frame that it ever passed.
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
    """What is wrong with the reference images that every cell has, where the cells themselves cannot be made."""
    urls = request.get("image_urls")
    for index, text in enumerate(urls if isinstance(urls, list) else ()):
        if isinstance(text, str) and not _ELSEWHERE.match(text):
            try:
                resolve(text)
            except BadReference as error:
                path = ("request", "image_urls", index)
                yield Problem(dotted(path), str(error), document.position(path), error.hint)


_ELSEWHERE = re.compile(r"\s*https?://|.*\{[{%#]", re.DOTALL | re.IGNORECASE)


def _shapes_cells(problem: Problem) -> bool:
    """Whether a problem is about what the cells are made of, so that theirs would only repeat or mask it."""
    if _AXIS_VALUE.match(problem.path):
        return False  # the other values of the axis make cells as good as any
    return problem.path == "" or problem.path.split(".")[0].split("[")[0] in _CELL_SECTIONS


_AXIS_VALUE = re.compile(r"matrix\.[A-Za-z0-9_]+\[")
_CELL_SECTIONS = {"matrix", "request", "vars", "include", "exclude", "repeat", "output"}


def _shown(job_file: str, relative: str) -> str:
    """How a file that a job names is shown: beside the job file as the user wrote it."""
    return os.path.normpath(os.path.join(os.path.dirname(job_file), relative))  # noqa: PTH118, PTH120 - text, no file

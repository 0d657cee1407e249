"""A job -> its tasks, one after the other, in bounded memory."""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from seedream_batch.errors import InvalidJob
from seedream_batch.expand.collect import ProblemCollector
from seedream_batch.expand.default_path import DefaultPath
from seedream_batch.expand.identity import RequestTexts
from seedream_batch.expand.matrix import cells, label
from seedream_batch.expand.paths import BadPath, collision_key, safe_path
from seedream_batch.expand.request import FieldError, RequestTemplate, render_at
from seedream_batch.expand.templates import Template, TemplateEngine, TemplateError
from seedream_batch.model.document import Json, Path
from seedream_batch.model.job import REFERENCE, Job, Reference
from seedream_batch.model.task import TaskSpec, image_path

STAND_IN = "https://reference.invalid/"
"""What stands for a checked local reference while the rest of the request is checked."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

MAX_IMAGES = 15
"""References and images together, at most [Seedream 4.5 API documentation]."""


class RequestFault(Protocol):
    """Something that the API would refuse in a request."""

    @property
    def path(self) -> Path:
        """Where in the request."""
        ...

    @property
    def message(self) -> str:
        """What is wrong, and what is allowed."""
        ...

    @property
    def hint(self) -> str:
        """How to mend it."""
        ...


class RequestRules(Protocol):
    """What the expansion has to know of the request schema."""

    @property
    def field_types(self) -> Mapping[tuple[str, ...], str]:
        """The JSON type of each field, by its path."""
        ...

    @property
    def defaults(self) -> Mapping[tuple[str, ...], Json]:
        """The API's default of each field that has one, by its path."""
        ...

    def problems(self, body: Mapping[str, Json]) -> Sequence[RequestFault]:
        """What is wrong with a request; empty for one that the API takes."""
        ...


class BadReference(ValueError):
    """A reference image that cannot be used; the message says which limit and the measured value."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


ResolveReference = Callable[[str], Reference]
"""From what a job writes in `image_urls` (a path or a data URI, no URL) to the checked image; may raise
`BadReference`."""


class Expansion:
    """The tasks of one job.

    Iterating gives a `TaskSpec` for each sample of each cell; at the end, or when there are too many causes to
    read, it raises `InvalidJob` with every problem found. What was given before that is not to be used then.
    """

    def __init__(self, job: Job, *, rules: RequestRules, engine: TemplateEngine, resolve: ResolveReference) -> None:
        self._job = job
        self._rules = rules
        self._resolve = resolve
        self._texts = RequestTexts(rules.defaults)
        filled_in = {
            axis.name: axis.typed
            for axis in job.axes
            if axis.name not in job.request and (axis.name,) in rules.field_types
        }
        for cell in job.include:
            for name in cell:
                if name not in job.request and (name,) in rules.field_types:
                    filled_in.setdefault(name, True)
        self._request = RequestTemplate(job.request, filled_in, engine, rules.field_types)
        self._path: Template | None = None
        self._path_error: FieldError | None = None
        if job.output_path:
            try:
                self._path = engine.compile(job.output_path)
            except TemplateError as error:
                self._path_error = FieldError(("output", "path"), error.message, error.hint)
        self.references: dict[str, Reference] = {}
        """Every local reference met so far, by its SHA-256."""

    def names(self) -> list[tuple[Path, frozenset[str]]]:
        """The free variables of each template of the job, with the place of the template."""
        own = [(("output", "path"), self._path.names)] if self._path else []
        return [*self._request.names, *own]

    def errors(self) -> list[FieldError]:
        """The templates that do not compile."""
        return [*self._request.errors, *([self._path_error] if self._path_error else [])]

    def __iter__(self) -> Iterator[TaskSpec]:
        collector = ProblemCollector(self._job)
        prints = array("Q")
        names = array("Q")
        for _cell, _sample, spec in self._specs(collector):
            prints.append(int(spec.fingerprint[:16], 16))
            names.extend([_hash(collision_key(name)) for name in _image_paths(spec)])
            yield spec
        self._find_twins(collector, _doubles(prints), _doubles(names))
        problems = collector.problems()
        if problems:
            raise InvalidJob(problems)

    def _specs(self, collector: ProblemCollector) -> Iterator[tuple[Mapping[str, Json], int, TaskSpec]]:
        job = self._job
        default_path = DefaultPath(job)
        cell_texts = _CellTexts(job)
        ordinal = 0
        for cell in cells(job):
            cell_text = cell_texts.of(cell)
            for sample in range(1, job.repeat + 1):
                if collector.full:
                    raise InvalidJob(collector.problems())
                ordinal += 1
                context: dict[str, Json] = {**job.vars, **cell, "sample": sample}
                try:
                    body = self._request.render(context)
                except FieldError as error:
                    _blame(collector, error, cell, sample)
                    continue
                body.setdefault("model", self._rules.defaults[("model",)])
                checked = self._with_references(body, collector, cell, sample)
                if checked is None:
                    continue
                faults = self._rules.problems(checked)
                for fault in faults:
                    where = self._request.source(fault.path)
                    collector.add(where, fault.message, hint=fault.hint, cell=cell, sample=sample)
                if faults:
                    continue
                images = images_asked(body)
                try:
                    if self._path:
                        paths = self._paths(self._path, context, body, images)
                    else:
                        paths = default_path.render(cell, sample)
                except FieldError as error:
                    _blame(collector, error, cell, sample)
                    continue
                spec = self._spec(body, ordinal, sample, images, paths, cell_text)
                yield cell, sample, spec

    def _spec(
        self, body: dict[str, Json], ordinal: int, sample: int, images: int, paths: tuple[str, ...], cell: str
    ) -> TaskSpec:
        defaults = self._rules.defaults
        resolution = str(body.get("resolution", defaults[("resolution",)]))
        text, print_ = self._texts.of(body, sample)
        return TaskSpec(
            fingerprint=print_,
            ordinal=ordinal,
            sample=sample,
            body=text,
            images=images,
            paths=paths,
            cell=cell,
            model=body["model"],
            size=str(body.get("size", defaults[("size",)])),
            resolution=resolution,
            price=self._job.budget.price_of(resolution),
        )

    def _with_references(
        self, body: dict[str, Json], collector: ProblemCollector, cell: Mapping[str, Json], sample: int
    ) -> dict[str, Json] | None:
        """The request with stand-ins for local references, for checking; `body` gets their hashes instead."""
        urls = body.get("image_urls")
        if not isinstance(urls, list):
            return body
        sent: list[Json] = []
        stand_ins: list[Json] = []
        good = True
        for index, text in enumerate(urls):
            if not isinstance(text, str) or text.startswith(("http://", "https://")):
                sent.append(text)
                stand_ins.append(text)
                continue
            try:
                reference = self._resolve(text)
            except BadReference as error:
                path = self._request.source(("image_urls", index))
                collector.add(path, str(error), hint=error.hint, cell=cell, sample=sample)
                good = False
                continue
            self.references[reference.sha256] = reference
            sent.append(REFERENCE + reference.sha256)
            stand_ins.append(STAND_IN + reference.sha256)
        if not good:
            return None
        body["image_urls"] = sent
        return {**body, "image_urls": stand_ins}

    def _paths(
        self, template: Template, context: dict[str, Json], body: Mapping[str, Json], images: int
    ) -> tuple[str, ...]:
        path: Path = ("output", "path")
        defaults = self._rules.defaults
        known = {
            "size": body.get("size", defaults[("size",)]),
            "resolution": body.get("resolution", defaults[("resolution",)]),
            "request": body,
            **context,
        }
        indexes = range(1, images + 1) if "index" in template.names else (1,)
        try:
            return tuple(safe_path(render_at(template, {**known, "index": index}, path)) for index in indexes)
        except BadPath as error:
            raise FieldError(path, str(error), cause=error.cause) from error

    def _find_twins(self, collector: ProblemCollector, prints: set[int], names: set[int]) -> None:
        """Names the cells that make the same request or path; goes over the job again only if there are any."""
        if not prints and not names:
            return
        same_request = _Twins(
            "makes the same request in two cells:",
            "the picture would be bought once only; use the axis in the prompt, drop one of the cells,"
            " or use repeat for several samples of one prompt",
        )
        same_path = _Twins(
            "gives one path to two images:", "use every axis in output.path, and sample where repeat is above 1"
        )
        for cell, sample, spec in self._specs(ProblemCollector(self._job)):
            here = label(cell, sample if self._job.repeat > 1 else None)
            if int(spec.fingerprint[:16], 16) in prints and same_request.again(spec.fingerprint, here):
                continue
            for index, name in enumerate(_image_paths(spec), start=1):
                key = collision_key(name)
                if _hash(key) in names:
                    image = f" image={index}" if spec.images > 1 else ""
                    if same_path.again(key, f"{name!r} of {here}{image}"):
                        break
        same_request.tell(collector, ("request",))
        same_path.tell(collector, ("output", "path"))


def _blame(collector: ProblemCollector, error: FieldError, cell: Mapping[str, Json], sample: int) -> None:
    collector.add(error.path, error.message, hint=error.hint, cause=error.cause, cell=cell, sample=sample)


class _Twins:
    """What must be unique and is not: the first pairs, and how many more there are."""

    _TOLD = 5

    def __init__(self, what: str, hint: str) -> None:
        self._what = what
        self._hint = hint
        self._first: dict[str, str] = {}
        self._pairs: list[tuple[str, str]] = []
        self._more = 0

    def again(self, key: str, here: str) -> bool:
        """Whether the key came before; `here` is where it is now."""
        before = self._first.setdefault(key, here)
        if before is here:
            return False
        if len(self._pairs) < self._TOLD:
            self._pairs.append((before, here))
        else:
            self._more += 1
        return True

    def tell(self, collector: ProblemCollector, path: Path) -> None:
        """Adds a problem for each pair; where there are many, the first one says how many."""
        pairs = self._pairs[:1] if self._more else self._pairs
        for before, here in pairs:
            more = f", and {self._more + len(self._pairs) - 1:,} more times" if self._more else ""
            collector.add(path, f"{self._what} {before}, and {here}{more}", hint=self._hint)


def _image_paths(spec: TaskSpec) -> Iterator[str]:
    return (image_path(spec.paths, spec.images, index, spec.fingerprint) for index in range(1, spec.images + 1))


def images_asked(body: Mapping[str, Json]) -> int:
    """How many images a valid request asks for, and is charged for in advance.

    Group mode (`auto`) without `max_images` may give as many as fit beside the references.
    """
    wanted = int(body.get("n", 1))
    if body.get("sequential_image_generation") == "auto":
        options = body.get("sequential_image_generation_options") or {}
        most = options.get("max_images")
        if most is None:
            most = wanted if wanted > 1 else MAX_IMAGES - len(body.get("image_urls") or ())
        wanted = max(wanted, int(most))
    return wanted


class _CellTexts:
    """The JSON text of each cell, from the texts of the axis values, which are made once."""

    def __init__(self, job: Job) -> None:
        self._axes = {
            axis.name: {id(value): f"{_encode(axis.name)}:{_encode(value)}" for value in axis.values}
            for axis in job.axes
        }

    def of(self, cell: Mapping[str, Json]) -> str:
        try:
            return f"{{{','.join([self._axes[name][id(value)] for name, value in cell.items()])}}}"
        except KeyError:
            return _encode(cell)


def _hash(text: str) -> int:
    return hash(text) & 0xFFFF_FFFF_FFFF_FFFF


def _doubles(hashes: array[int]) -> set[int]:
    ordered = sorted(hashes)
    return {one for one, following in itertools.pairwise(ordered) if one == following}

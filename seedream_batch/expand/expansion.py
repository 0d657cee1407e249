"""Expands a job into its tasks, one at a time, in bounded memory."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from seedream_batch.errors import InvalidJob
from seedream_batch.expand.earlier_fingerprints import EarlierFingerprints, plain_prompt
from seedream_batch.expand.matrix import cells, varying_names
from seedream_batch.expand.output_path import Places, collision_key
from seedream_batch.expand.problem_collector import ProblemCollector
from seedream_batch.expand.request_template import PROMPT, Context, FieldError, RequestTemplate
from seedream_batch.expand.request_variants import RequestVariant, RequestVariants, ResolveReference
from seedream_batch.model.cell import label
from seedream_batch.model.document import Json, Path
from seedream_batch.model.job import Job, Reference
from seedream_batch.model.task import RereadTask, TaskSpec, image_path
from seedream_batch.templates.engine import Template, TemplateEngine, TemplateError
from seedream_batch.validate.request_schema import RequestSchema

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Expansion:
    """The tasks of one job.

    Iterating yields a `TaskSpec` for each sample of each cell. At the end, or when there are too many causes to read,
    it raises `InvalidJob` with every problem found; the tasks yielded before must then not be used.
    """

    def __init__(self, job: Job, *, rules: RequestSchema, engine: TemplateEngine, resolve: ResolveReference) -> None:
        self._job = job
        self._rules = rules
        self._takes_prompt = rules.takes_prompt
        filled_in = {
            axis.name: axis.typed
            for axis in job.axes
            if axis.name not in job.request and (axis.name,) in rules.field_types
        }
        for cell in job.include:
            for name in cell:
                if name not in job.request and (name,) in rules.field_types:
                    filled_in.setdefault(name, True)
        self._request = RequestTemplate(job.request, filled_in, engine, rules.field_types, varying_names(job))
        self._path: Template | None = None
        self._path_error: FieldError | None = None
        if job.output_path:
            try:
                self._path = engine.compile(job.output_path)
            except TemplateError as error:
                self._path_error = FieldError(("output", "path"), error.message, error.hint)
        self.references: dict[str, Reference] = {}
        """Every local reference met so far, by its SHA-256."""
        self._variants = RequestVariants(job, self._request, rules, resolve, self.references)
        self._readings = EarlierFingerprints(job, self._variants)

    def names(self) -> list[tuple[Path, frozenset[str]]]:
        """Return the free variables of each template of the job, with the path of the template."""
        own = [(("output", "path"), self._path.names)] if self._path else []
        return [*self._request.names, *own]

    def errors(self) -> list[FieldError]:
        """Return the errors of templates that do not compile."""
        return [*self._request.errors, *([self._path_error] if self._path_error else [])]

    def __iter__(self) -> Iterator[TaskSpec]:
        collector = ProblemCollector(self._job)
        prints, names = HashSet(), HashSet()
        for _cell, _sample, spec in self._specs(collector):
            prints.add(spec.fingerprint)
            if spec.images == 1:
                names.add(collision_key(spec.paths[0]))
            else:
                for name in image_paths(spec):
                    names.add(collision_key(name))
            yield spec
        self._report_duplicates(collector, prints.twice(), names.twice())
        problems = collector.problems()
        if problems:
            raise InvalidJob(problems)

    def _specs(self, collector: ProblemCollector) -> Iterator[tuple[Mapping[str, Json], int, TaskSpec]]:
        job = self._job
        places = Places(job, self._path)
        cell_texts = _CellTexts(job)
        samples = tuple(range(1, job.repeat + 1))  # shared by all cells, as cached results are found by identity
        full = False
        ordinal = 0
        for cell in cells(job):
            cell_text = cell_texts.of(cell)
            for sample in samples:
                if full:
                    raise InvalidJob(collector.problems())
                ordinal += 1
                context: Context = {**job.vars, **cell, "sample": sample}
                parts = self._expand_cached(context, cell, places)
                if parts is None:
                    parts = self._expand_checked(context, cell, places, collector)
                if parts is None:
                    full = collector.full
                    continue
                variant, prompt, paths, earlier = parts
                text, print_ = self._variants.texts(variant, prompt, sample)
                spec = TaskSpec(
                    print_, ordinal, sample, text, variant.images, paths, cell_text,
                    variant.model, variant.size, variant.resolution, variant.price,
                )  # fmt: skip
                if earlier:
                    spec = RereadTask.of(spec, earlier)
                yield cell, sample, spec

    def _expand_cached(self, context: Context, cell: Mapping[str, Json], places: Places) -> _Made | None:
        """Expand a cell whose request has a known variant; None if it needs `_expand_checked` or has a problem."""
        variant = self._variants.of(context)
        if variant is None:
            return None
        try:
            raw = self._request.prompt(context)
            prompt = plain_prompt(raw) if isinstance(raw, str) else raw
            if not self._takes_prompt(prompt):
                return None
            return self._parts(variant, prompt, raw, context, cell, places)
        except FieldError:
            return None

    def _expand_checked(
        self, context: Context, cell: Mapping[str, Json], places: Places, collector: ProblemCollector
    ) -> _Made | None:
        """Expand a cell with every check; None if it has problems, which are collected."""
        sample = context["sample"]
        try:
            body = self._variants.request(context)
            raw = body.get(PROMPT)
            if isinstance(raw, str):
                body[PROMPT] = plain_prompt(raw)
            checked, bad = self._variants.with_references(body)
            for index, error in bad:
                where = self._request.source(("image_urls", index))
                collector.add(where, str(error), hint=error.hint, cell=cell, sample=sample)
            if bad:
                return None
            faults = self._rules.problems(checked)
            for fault in faults:
                where = self._request.source(fault.path)
                collector.add(where, fault.message, hint=fault.hint, cell=cell, sample=sample)
            if faults:
                return None
            variant = self._variants.shape(body)
            return self._parts(variant, body[PROMPT], str(raw), context, cell, places)
        except FieldError as error:
            collector.add(error.path, error.message, hint=error.hint, cause=error.cause, cell=cell, sample=sample)
            return None

    def _parts(
        self, variant: RequestVariant, prompt: str, raw: str, context: Context, cell: Mapping[str, Json], places: Places
    ) -> _Made:
        """Return the parts of a task; `raw` is the prompt before normalisation. Raises `FieldError`."""
        self._readings.check_numbers(context, cell, raw)
        earlier = self._readings.earlier(context, cell, variant, prompt, raw)
        return variant, prompt, places.of(variant, prompt, context, cell), earlier

    def _report_duplicates(self, collector: ProblemCollector, prints: set[int], names: set[int]) -> None:
        """Report cells that make the same request or path; expands the job again only if there are any."""
        if not prints and not names:
            return
        same_request = Duplicates(
            "is the same request in two cells:",
            "only one image would be generated; use the axis in the prompt, remove one of the cells,"
            " or use repeat for several samples of one prompt",
        )
        same_path = Duplicates(
            "is the same path for two images:", "use every axis in output.path, and sample if repeat is above 1"
        )
        rows = _Rows(self._job)
        for cell, sample, spec in self._specs(ProblemCollector(self._job)):
            here = rows.named(cell, label(cell, sample if self._job.repeat > 1 else None))
            if hash(spec.fingerprint) in prints and same_request.again(spec.fingerprint, here):
                continue
            for index, name in enumerate(image_paths(spec), start=1):
                key = collision_key(name)
                if hash(key) in names:
                    image = f" image={index}" if spec.images > 1 else ""
                    if same_path.again(key, f"{name!r} of {here}{image}"):
                        break
        same_request.tell(collector, ("request",))
        same_path.tell(collector, ("output", "path"))


_Made: TypeAlias = tuple[RequestVariant, str, tuple[str, ...], tuple[tuple[str, str], ...]]
"""The request variant, the prompt and the paths of a task, and its texts and fingerprints of earlier versions."""


class _Rows:
    """Names the table rows that a cell comes from; of several equal rows, each in turn."""

    def __init__(self, job: Job) -> None:
        self._axes: dict[str, dict[str, list[str]]] = {}
        for axis in job.axes:
            rows = self._axes[axis.name] = {}
            for value, at in zip(axis.values, axis.positions, strict=True):
                if at.file != job.document.file:
                    rows.setdefault(_encode(value), []).append(f"{at.file}:{at.line}")
        self._met: Counter[str] = Counter()

    def named(self, cell: Mapping[str, Json], name: str) -> str:
        """Return the name of a cell, with the rows of its values."""
        turn = self._met[name]
        self._met[name] += 1
        known_rows = (self._axes[axis].get(_encode(value)) for axis, value in cell.items() if axis in self._axes)
        rows = [places[min(turn, len(places) - 1)] for places in known_rows if places]
        return f"{name} ({', '.join(rows)})" if rows else name


class _CellTexts:
    """Builds the JSON text of each cell from the texts of the axis values, which are encoded once."""

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


class HashSet:
    """Hashes of texts, 8 bytes each, in buckets small enough to search one at a time.

    Equal texts have equal hashes; the caller has to check whether texts with equal hashes really are equal.
    """

    _BUCKETS = 64

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(self._BUCKETS)]
        self._adders = [bucket.append for bucket in self._buckets]

    def add(self, text: str) -> None:
        number = hash(text)
        self._adders[number & 63](number)

    def twice(self) -> set[int]:
        twice: set[int] = set()
        for bucket in self._buckets:
            if len(set(bucket)) < len(bucket):
                twice.update(number for number, times in Counter(bucket).items() if times > 1)
        return twice


class Duplicates:
    """Duplicates of one kind: the first pairs, and the number of further ones."""

    _TOLD = 5

    def __init__(self, what: str, hint: str) -> None:
        self._what = what
        self._hint = hint
        self._first: dict[str, str] = {}
        self._pairs: list[tuple[str, str]] = []
        self._more = 0

    def again(self, key: str, here: str) -> bool:
        """Return whether the key occurred before; `here` describes the present occurrence."""
        before = self._first.setdefault(key, here)
        if before is here:
            return False
        if len(self._pairs) < self._TOLD:
            self._pairs.append((before, here))
        else:
            self._more += 1
        return True

    def tell(self, collector: ProblemCollector, path: Path) -> None:
        """Add a problem for each pair; if there are many, only for the first, with the number of the others."""
        pairs = self._pairs[:1] if self._more else self._pairs
        for before, here in pairs:
            more = f", and {self._more + len(self._pairs) - 1:,} more times" if self._more else ""
            collector.add(path, f"{self._what} {before}, and {here}{more}", hint=self._hint)


def image_paths(spec: TaskSpec) -> Iterator[str]:
    """Yield the path of each image that the task asks for."""
    return (image_path(spec.paths, spec.images, index, spec.fingerprint) for index in range(1, spec.images + 1))

"""The output paths of a task: from the job's template, or by default."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from seedream_batch.expand.fingerprint import dumps
from seedream_batch.expand.matrix import varying_names
from seedream_batch.expand.path_safety import BadPath, collision_key, is_harmless, safe_path
from seedream_batch.expand.request_template import PROMPT, Context, FieldError, render_at
from seedream_batch.expand.request_variants import RequestVariant
from seedream_batch.model.cell import name_of
from seedream_batch.model.document import Json, Path
from seedream_batch.model.job import Job
from seedream_batch.templates.engine import Template
from seedream_batch.templates.render_cache import CachedTemplate

_PATH: Path = ("output", "path")


class Places:
    """The paths of the tasks of one job; `template` is that of `output.path`, if the job has one."""

    def __init__(self, job: Job, template: Template | None) -> None:
        self._default = DefaultPath(job)
        self._template: CachedTemplate | None = None
        if template:
            names = varying_names(job) | {"size", "resolution", "request", "index"}
            self._template = CachedTemplate(template, names, frozenset({"request"}))
        self._numbered = template is not None and "index" in template.names
        self._reads_request = template is not None and (template.includes or "request" in template.names)

    def of(self, variant: RequestVariant, prompt: Json, context: Context, cell: Mapping[str, Json]) -> tuple[str, ...]:
        """Return the paths of a task, relative to the output folder, without extension. Raises `FieldError`."""
        if self._template is None:
            return self._default.render(cell, context["sample"])
        known = {
            "size": variant.size,
            "resolution": variant.resolution,
            "request": {**variant.body, PROMPT: prompt} if self._reads_request else variant.body,
            **context,
            "index": 1,
        }
        try:
            if not self._numbered:
                return (safe_path(render_at(self._template, known, _PATH)),)
            return tuple(
                safe_path(render_at(self._template, {**known, "index": index}, _PATH))
                for index in range(1, variant.images + 1)
            )
        except BadPath as error:
            raise FieldError(_PATH, str(error), cause=error.cause) from error


class DefaultPath:
    """The path for a job that sets none: the first axis gives the folder, the other axes the file name.

    The names are joined by `_`, which they do not contain themselves, so that no two cells get the same path.
    """

    _LONGEST = 150
    """Longest name in bytes; longer ones are cut."""

    def __init__(self, job: Job) -> None:
        self._sample = job.repeat > 1
        self._axes = [axis.name for axis in job.axes]
        values: dict[str, list[Json]] = {axis.name: list(axis.values) for axis in job.axes}
        for cell in job.include:
            for name, value in cell.items():
                values.setdefault(name, []).append(value)
        included = {name for cell in job.include for name in cell}
        self._parts = {name: _parts(listed, several=name in included) for name, listed in values.items()}
        # A path joined from parts that are harmless and short is harmless and short as well, so needs no check.
        short = self._LONGEST // (len(self._axes) + 4)
        self._harmless = [(name, _harmless(self._parts[name], short)) for name in self._axes]

    def render(self, cell: Mapping[str, Json], sample: int) -> tuple[str, ...]:
        if len(cell) == len(self._harmless) > 0:
            try:
                first, *others = [parts[id(cell[name])] for name, parts in self._harmless]
            except KeyError:
                return self._rendered(cell, sample)
            if self._sample:
                others.append(str(sample))
            return (first + "/" + "_".join(others) if others else first,)
        return self._rendered(cell, sample)

    def _rendered(self, cell: Mapping[str, Json], sample: int) -> tuple[str, ...]:
        if len(cell) == len(self._axes) and all(name in cell for name in self._axes):
            parts = [self._parts[name][id(cell[name])] for name in self._axes]
        else:
            names = [*self._axes, *sorted(cell.keys() - set(self._axes))]
            parts = [f"{name}={self._parts[name][id(cell[name])]}" for name in names if name in cell]
        if self._sample:
            parts.append(str(sample))
        rendered = parts[0]
        if len(parts) > 1:
            rendered += "/" + self._bounded("_".join(parts[1:]))
        try:
            return (safe_path(rendered),)
        except BadPath as error:
            raise FieldError(("output", "path"), str(error), "set output.path", error.cause) from error

    def _bounded(self, name: str) -> str:
        encoded = name.encode()
        if len(encoded) <= self._LONGEST:
            return name
        short = encoded[: self._LONGEST].decode(errors="ignore")
        return f"{short}-{hashlib.sha256(encoded).hexdigest()[:12]}"


def _parts(values: Sequence[Json], *, several: bool) -> dict[int, str]:
    """Return the path part for each value, by its `id()`; `several` allows equal values to occur repeatedly."""
    slugs = [_slug(value) for value in values]
    keys = [collision_key(slug) for slug in slugs]
    distinct = {dumps(value): key for value, key in zip(values, keys, strict=True)}.values() if several else keys
    times = Counter(distinct)
    return {
        id(value): slug if times[key] == 1 and not slug.endswith("…") else _with_hash(slug, value)
        for value, slug, key in zip(values, slugs, keys, strict=True)
    }


def _harmless(parts: Mapping[int, str], short: int) -> dict[int, str]:
    """Return the parts that need no change as a folder or in a file name, and are shorter than `short`."""
    return {key: part for key, part in parts.items() if len(part) < short and is_harmless(f"{part}/{part}")}


def _with_hash(slug: str, value: Json) -> str:
    # Two values share a name, or the name was cut: a few digits of the value's hash make it unique.
    return f"{slug.rstrip('…')}-{hashlib.sha256(dumps(value).encode()).hexdigest()[:6]}"


def _slug(value: Json) -> str:
    """Return the name of a value as part of a file name: without `/`, `_` or anything that a path replaces."""
    text = "-".join(name_of(value).replace("/", "-").replace("_", "-").split()).lstrip(".")
    try:
        return safe_path(text) if text else "value"
    except BadPath:
        return "value"

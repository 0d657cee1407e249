"""The output paths of a task: from the job's template, or by default."""

from __future__ import annotations

from collections.abc import Mapping

from seedream_batch.expand.default_path import DefaultPath
from seedream_batch.expand.matrix import varying_names
from seedream_batch.expand.path_safety import BadPath, safe_path
from seedream_batch.expand.request_template import PROMPT, Context, FieldError, render_at
from seedream_batch.expand.request_variants import RequestVariant
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

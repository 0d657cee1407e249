"""Compiles a job's `request` once, and renders the final request of each cell."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from seedream_batch.expand.fingerprint import normalise_numbers
from seedream_batch.model.document import Json, Path
from seedream_batch.templates.engine import Template, TemplateEngine, TemplateError
from seedream_batch.templates.render_cache import ABSENT, CachedTemplate

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")

PROMPT = "prompt"
"""The field that differs from cell to cell; the others mostly repeat."""

Context = Mapping[str, Json]
Render = Callable[[Context], Json]


class FieldError(Exception):
    """Raised if a field of the request cannot be rendered; `path` is the position of the mistake in the job file.

    `cause` is the message without what differs from cell to cell.
    """

    def __init__(self, path: Path, message: str, hint: str = "", cause: str = "") -> None:
        self.path = path
        self.message = message
        self.hint = hint
        self.cause = cause
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class _Field:
    render: Render
    path: Path


class RequestTemplate:
    """The request of a job, with its constants and compiled templates.

    `types` maps a path in the request to the JSON type that a template there must produce. `axes` maps each axis that
    fills a field not set in the job's `request` to whether its values are typed; text from an untyped file is converted
    to the type of the field. `varying_names` are the names whose values vary. Templates that do not compile are
    in `errors`; `names` holds the free variables of each template.
    """

    def __init__(
        self,
        request: Mapping[str, Json],
        axes: Mapping[str, bool],
        engine: TemplateEngine,
        types: Mapping[tuple[str, ...], str],
        varying_names: AbstractSet[str],
    ) -> None:
        self.errors: list[FieldError] = []
        self.names: list[tuple[Path, frozenset[str]]] = []
        self.rest_reads: set[str] | None = set(axes.keys() - {PROMPT})
        """The names that the fields other than the prompt depend on; None if unknown."""
        self.prompt_reads: frozenset[str] | None = frozenset()
        """The names that the prompt depends on; None if unknown."""
        self.prompt_template: Template | None = None
        """The uncached template of the prompt."""
        self._engine = engine
        self._types = types
        self._turning = varying_names
        self._fields: dict[str, _Field] = {}
        for name, value in request.items():
            path: Path = ("request", name)
            self._fields[name] = _Field(self._compile(value, path, (name,)), path)
        for name, typed in axes.items():
            self._fields[name] = _Field(self._from_axis(name, typed=typed), ("matrix", name))
        field = self._fields.get(PROMPT)
        self.prompt: Render = field.render if field else lambda _context: ABSENT
        """Renders the prompt of one cell, `ABSENT` if it has none. Raises `FieldError`."""

    def render(self, context: Context, prompt: Json = ABSENT) -> dict[str, Json]:
        """Render the request of one cell, with the given prompt if any. Raises `FieldError`."""
        body = {}
        for name, field in self._fields.items():
            value = prompt if name == PROMPT and prompt is not ABSENT else field.render(context)
            if value is not ABSENT:
                body[name] = value
        return body

    def source(self, path: Path) -> Path:
        """Return the path in the job file that the value at `path` of the request comes from."""
        field = self._fields.get(str(path[0])) if path else None
        if field is None:
            return ("request", *path)
        return (*field.path, *path[1:]) if field.path[0] == "request" else field.path

    def _from_axis(self, name: str, *, typed: bool) -> Render:
        wanted = self._types.get((name,), "string")
        path: Path = ("matrix", name)

        def render(context: Context) -> Json:
            value = context.get(name, ABSENT)
            return (
                normalise_numbers(value)
                if typed or not isinstance(value, str)
                else _as_type(value.strip(), wanted, path)
            )

        return render

    def _compile(self, value: Json, path: Path, field: tuple[str, ...]) -> Render:
        if isinstance(value, str):
            return self._compile_text(value, path, field)
        if isinstance(value, list):
            items = [self._compile(item, (*path, index), field) for index, item in enumerate(value)]
            return lambda context: [item(context) for item in items]
        if isinstance(value, dict):
            fields = {key: self._compile(item, (*path, key), (*field, key)) for key, item in value.items()}
            return lambda context: {key: item(context) for key, item in fields.items()}
        constant = normalise_numbers(value)
        return lambda _context: constant

    def _compile_text(self, text: str, path: Path, field: tuple[str, ...]) -> Render:
        try:
            template = self._engine.compile(text)
        except TemplateError as error:
            self.errors.append(_field_error(path, error, text))
            return lambda _context: None
        self.names.append((path, template.names))
        strip = field == (PROMPT,)
        if strip:
            self.prompt_reads = None if template.includes else template.reads
            self.prompt_template = template
        if not strip and self.rest_reads is not None:
            self.rest_reads = None if template.includes else self.rest_reads | template.reads
        if template.is_constant:
            constant = text.strip() if strip else text
            return lambda _context: constant
        wanted = self._types.get(field, "string")
        remembering = CachedTemplate(template, self._turning)

        def render(context: Context) -> Json:
            try:
                rendered = remembering.render(context)
            except TemplateError as error:
                raise _field_error(path, error, text) from error
            if strip and "{" in rendered and _MARKUP.search(rendered):
                _check_markup_of_values(template, context, rendered, path)
            if wanted == "string":
                return rendered.strip() if strip else rendered
            return _as_type(rendered.strip(), wanted, path)

        return render


def _check_markup_of_values(template: Template, context: Context, rendered: str, path: Path) -> None:
    """Raise `FieldError` if a value brought template markup into the rendered prompt.

    Nobody wants that drawn: the value was mistaken for a template, and its literal text would be paid for. Markup that
    the prompt itself writes as text, with `{% raw %}` or in quotes, is intended.
    """
    reads = context if template.includes else template.reads
    for name in reads:
        if name not in context or (marked := _replace_braces(context[name])) == context[name]:
            continue
        try:
            # Replace the value's braces with another character: if it appears in the text, the markup is the value's.
            brought = _MARKED in template.render({**context, name: marked})
        except TemplateError:
            brought = True
        if brought:
            match = _MARKUP.search(rendered)
            at = match.start() if match else 0
            excerpt = rendered[max(0, at - 20) : at + 40]
            message = f"the value of `{name}` contains a template, but values are not rendered: {excerpt!r}"
            hint = "to show braces in the image, write {% raw %}{{ ... }}{% endraw %} in the prompt"
            raise FieldError(path, message, hint)


_MARKUP = re.compile(r"\{\{|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_MARKED = "\ue000"


def _replace_braces(value: Json) -> Json:
    if isinstance(value, str):
        return _MARKUP.sub(lambda match: match.group().replace("{", _MARKED), value)
    if isinstance(value, dict):
        return {key: _replace_braces(item) for key, item in value.items()}
    return [_replace_braces(item) for item in value] if isinstance(value, list) else value


def render_at(template: CachedTemplate, context: Context, path: Path) -> str:
    """Render the template for one cell. Raises `FieldError` that names `path`."""
    try:
        return template.render(context)
    except TemplateError as error:
        raise _field_error(path, error, template.source) from error


def _field_error(path: Path, error: TemplateError, source: str) -> FieldError:
    where = f"line {error.line} of the template: " if error.line and "\n" in source.strip() else ""
    return FieldError(path, where + error.message, error.hint)


def _as_type(text: str, wanted: str, path: Path) -> Json:
    if wanted == "integer":
        if _INTEGER.fullmatch(text):
            return int(text)
        raise _wrong_type(path, "must give an integer", text)
    if wanted == "boolean":
        if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        raise _wrong_type(path, "must give true or false", text)
    return text


def _wrong_type(path: Path, message: str, text: str) -> FieldError:
    # Each value of an axis has to be fixed on its own, a template only once.
    return FieldError(path, f"{message}, gave {text[:60]!r}", cause="" if path[0] == "matrix" else message)

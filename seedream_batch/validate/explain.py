"""Turns errors of the `jsonschema` library into findings with messages of our own.

Besides JSON Schema's keywords it reads these annotations from the schemas: `x-expected` (completes "must be ..."),
`x-hints` (hints for certain values), `x-quoted` (why a quoted number is wrong), `x-empty` and `x-empty-hint` (message
and hint for an empty mapping or list), `x-max-items-hint`, `x-rule` (a rule that spans fields, see `_RULES`) and
`x-aside` (a branch of an `anyOf` that is never explained if another can be).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from seedream_batch.model.document import Json, Path
from seedream_batch.model.text import escaped
from seedream_batch.validate.hints import (
    Schema,
    bare,
    flow,
    hint_for,
    path_text,
    shown,
    types_of,
    unknown_key,
    usable_name,
)

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
}


MOST_TOGETHER = 15
"""Most reference images plus requested images [Seedream 4.5 API documentation]."""

_RULES = {
    "size-auto": ("size auto needs a reference image", "add image_urls, or set a ratio such as 1:1"),
    "several-images": (
        "several images ({name} {images}) need at least one reference image in image_urls",
        "for several images of one prompt without references, use `repeat` in the job",
    ),
    "series": (
        "sequential_image_generation auto needs at least one reference image in image_urls",
        "add image_urls, or remove it",
    ),
    "options-without-auto": (
        "works only with sequential_image_generation: auto",
        "add sequential_image_generation: auto, or use n alone",
    ),
    "together": (
        "{references} reference{s} + {name} {images} = {all}, but the API accepts at most {most} together",
        "{name} can be at most {left} here",
    ),
}
"""What each rule that spans fields says, and how to follow it."""

MOST_FINDINGS = 1000
"""Findings after which the search ends: nobody reads more, and each takes time to explain."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake: the path, what is wrong, how to fix it, and whether the key itself is wrong.

    `at` is the path of the refused value, where it differs from `path`.
    """

    path: Path
    message: str
    hint: str = ""
    key: bool = False
    at: Path | None = None


def findings(errors: Iterable[ValidationError], value: Json, root: Schema) -> list[Finding]:
    """Return what the errors of the document `value` under the schema `root` mean, in order, without duplicates.

    A rule that spans fields is not reported if one of its fields is wrong itself.
    """
    explained = islice(_explain_all(errors, value, root), MOST_FINDINGS)
    unique = list({(finding.path, finding.message): finding for finding in explained}.values())
    wrong = {finding.path for finding in unique if finding.at is None}
    return [finding for finding in unique if finding.at is None or finding.at not in wrong]


def _explain_all(errors: Iterable[ValidationError], value: Json, root: Schema) -> Iterator[Finding]:
    for error in errors:
        yield from _explain(error, value, root)


def _explain(error: ValidationError, value: Json, root: Schema) -> Iterator[Finding]:
    schema = _schema(error)
    path = tuple(error.absolute_path)
    steps = tuple(error.relative_schema_path)
    if "x-rule" in schema:
        yield _broken_rule(schema["x-rule"], path, error.instance, value)
    elif steps[-2:-1] == ("propertyNames",):
        name = str(error.instance)
        yield Finding((*path, name), f"a name must be {_expected(schema)}", usable_name(schema, name), key=True)
    elif error.validator == "anyOf":
        yield from _explain_all(_fitting_branch(error), value, root)
    elif error.validator in _EXPLAIN:
        yield from _EXPLAIN[error.validator](path, schema, error.instance, root)
    else:
        yield _refused(path, schema, error.instance)


def _broken_rule(rule: str, path: Path, value: Json, body: Json) -> Finding:
    # Other mistakes in the same request are reported beside this one: nothing has the right type for sure.
    urls = body.get("image_urls")
    references = len(urls) if isinstance(urls, list) else 0
    images = int(value) if isinstance(value, int) or (isinstance(value, float) and value.is_integer()) else 0
    facts = {
        "name": path[-1] if path else "",
        "images": images,
        "references": references,
        "s": "s" * (references > 1),
        "all": references + images,
        "most": MOST_TOGETHER,
        "left": MOST_TOGETHER - references,
    }
    message, hint = (text.format_map(facts) for text in _RULES[rule])
    # This one is about a field that the rule itself does not name.
    place = ("sequential_image_generation_options",) if rule == "options-without-auto" else path
    return Finding(place, message, hint, at=path)


def _schema(error: ValidationError) -> Schema:
    return error.schema if isinstance(error.schema, dict) else {}


def _fitting_branch(error: ValidationError) -> list[ValidationError]:
    """Return the errors of the `anyOf` branch that was probably meant: the first of the value's type."""
    branches: dict[Json, list[ValidationError]] = {}
    for child in error.context or ():
        branches.setdefault(child.relative_schema_path[0], []).append(child)
    explainable = [branch for branch in branches.values() if not any("x-aside" in _schema(child) for child in branch)]
    of_type = [
        branch
        for branch in explainable
        if not any(child.validator == "type" and not child.relative_path for child in branch)
    ]
    return (of_type or explainable or list(branches.values()))[0]


def _refused(path: Path, schema: Schema, value: Json) -> Finding:
    got = bare(value) if "enum" in schema else shown(value)
    return Finding(path, f"must be {_expected(schema)}, got {got}", hint_for(schema, value))


def _expected(schema: Schema) -> str:
    if "x-expected" in schema:
        return str(schema["x-expected"])
    if "enum" in schema:
        return "one of " + ", ".join(flow(choice) for choice in schema["enum"])
    return " or ".join(_KINDS[name] for name in types_of(schema)) or "something else"


def _missing(path: Path, schema: Schema, value: Json, _root: Schema) -> Iterator[Finding]:
    if _is_other_mapping(schema, value):
        yield _refused(path, schema, value)
        return
    for name in schema["required"]:
        if name not in value:
            examples = schema.get("properties", {}).get(name, {}).get("examples", ())
            yield Finding(
                (*path, name), "is required", f"for example `{name}: {flow(examples[0])}`" if examples else ""
            )


def _unknown(path: Path, schema: Schema, value: Json, root: Schema) -> Iterator[Finding]:
    if _is_other_mapping(schema, value):
        yield _refused(path, schema, value)
        return
    known = tuple(schema.get("properties", {}))
    for key in value:
        if key not in known:
            name = str(key)
            hint = unknown_key(escaped(name), known, root, path_text(path))
            yield Finding((*path, name), "unknown key", hint, key=True)


def _is_other_mapping(schema: Schema, value: Json) -> bool:
    """Return whether a mapping without any key of `{file: path}` was written where that form is expected."""
    return "x-expected" in schema and "required" in schema and not any(key in schema["properties"] for key in value)


def _empty(path: Path, schema: Schema, _value: Json, _root: Schema) -> Iterator[Finding]:
    yield Finding(path, schema.get("x-empty", "must not be empty"), schema.get("x-empty-hint", ""))


def _too_many(path: Path, schema: Schema, value: Json, _root: Schema) -> Iterator[Finding]:
    message = f"must have at most {schema['maxItems']} entries, got {len(value)}"
    yield Finding(path, message, schema.get("x-max-items-hint", ""))


_EXPLAIN: dict[str, Callable[[Path, Schema, Json, Schema], Iterator[Finding]]] = {
    "required": _missing,
    "additionalProperties": _unknown,
    "minItems": _empty,
    "minProperties": _empty,
    "maxItems": _too_many,
}

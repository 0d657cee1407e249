"""The limits of a request, from its schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from seedream_batch.model.document import Json
from seedream_batch.validate.explain import Finding, findings
from seedream_batch.validate.hints import types_of
from seedream_batch.validate.schemas import accepts, schema, text_test, validator, validator_of

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_FREE = "prompt"
"""The field that differs between tasks and that no rule ties to another field."""

_REMEMBERED = 4096
"""Number of cached results, and longest body in characters that is cached."""


class RequestSchema:
    """What the API accepts in a submission, for the request schema called `name`.

    The tasks of a matrix differ in their prompt and repeat the rest, so `is_valid` checks the prompt and caches the
    result for the rest.
    """

    def __init__(self, name: str = "request") -> None:
        self._name = name
        self._verdicts: dict[str, bool] = {}

    def problems(self, body: Mapping[str, Json]) -> list[Finding]:
        """Return everything wrong with a request body, without duplicates; empty exactly when `is_valid`."""
        if self.is_valid(body):
            return []
        plain = _plain(body)
        return findings(self._whole.iter_errors(plain), plain, self._schema)

    def is_valid(self, body: Mapping[str, Json]) -> bool:
        """Return whether the API would accept this body."""
        plain = _plain(body)
        if not isinstance(plain, dict) or _FREE not in plain:
            return self._accepts(plain)
        rest = {**plain, _FREE: "x"}
        # The repr distinguishes 1, 1.0 and True, which are equal as dictionary keys, and "1".
        key = repr(rest)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._accepts(rest)
            if len(key) <= _REMEMBERED:
                if len(self._verdicts) >= _REMEMBERED:
                    self._verdicts.clear()
                self._verdicts[key] = verdict
        return verdict and self.takes_prompt(plain[_FREE])

    def _accepts(self, plain: Json) -> bool:
        return accepts(self._name)(plain) or self._whole.is_valid(plain)

    @cached_property
    def field_types(self) -> Mapping[tuple[str, ...], str]:
        """The JSON type of each field by its path, including mappings and lists."""
        return MappingProxyType({path: types_of(field)[0] for path, field in _fields(self._schema, ())})

    @cached_property
    def defaults(self) -> Mapping[tuple[str, ...], Json]:
        """The API's default for each field that has one, by its path."""
        return MappingProxyType(
            {path: field["default"] for path, field in _fields(self._schema, ()) if "default" in field}
        )

    @property
    def _schema(self) -> Mapping[str, Json]:
        return schema(self._name)

    @cached_property
    def _whole(self) -> Validator:
        return validator(self._name)

    @cached_property
    def takes_prompt(self) -> Callable[[Json], bool]:
        """A predicate: whether the API would accept a prompt, in any body."""
        field = self._schema["properties"][_FREE]
        return text_test(field) or validator_of(field).is_valid


def _plain(body: Mapping[str, Json]) -> Json:
    """Return the body as a dictionary, which the schema library requires for a mapping; anything else unchanged."""
    return dict(body) if isinstance(body, Mapping) and not isinstance(body, dict) else body


def _fields(part: Mapping[str, Json], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Json]]]:
    for name, field in part.get("properties", {}).items():
        yield (*path, name), field
        yield from _fields(field, (*path, name))

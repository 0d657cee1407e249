"""Protocols that the expansion needs: the rules of requests, and reference images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from seedream_batch.model.document import Json, Path
from seedream_batch.model.job import Reference


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
        """How to fix it."""
        ...


class RequestRules(Protocol):
    """What the expansion needs to know about the request schema."""

    @property
    def field_types(self) -> Mapping[tuple[str, ...], str]:
        """The JSON type of each field, by its path."""
        ...

    @property
    def defaults(self) -> Mapping[tuple[str, ...], Json]:
        """The API's default for each field that has one, by its path."""
        ...

    def problems(self, body: Mapping[str, Json]) -> Sequence[RequestFault]:
        """Return what is wrong with a request; empty if the API accepts it."""
        ...

    @property
    def takes_prompt(self) -> Callable[[Json], bool]:
        """A predicate: whether a valid request stays valid with a given prompt; no rule ties it to other fields."""
        ...


class BadReference(ValueError):
    """Raised for an unusable reference image; the message gives the limit and the measured value."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


ResolveReference = Callable[[str], Reference]
"""Takes an entry of `image_urls` (a path or a data URI, not a URL) and returns the checked image; may raise
`BadReference`."""

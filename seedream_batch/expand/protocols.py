"""What the expansion asks of others: the rules of requests, and reference images."""

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

    @property
    def takes_prompt(self) -> Callable[[Json], bool]:
        """The test whether a request that the API takes stays so with a prompt: no rule ties it to another field."""
        ...


class BadReference(ValueError):
    """A reference image that cannot be used; the message says which limit and the measured value."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


ResolveReference = Callable[[str], Reference]
"""From what a job writes in `image_urls` (a path or a data URI, no URL) to the checked image; may raise
`BadReference`."""

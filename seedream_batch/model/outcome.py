"""What the service's answers mean for a task, independent of their form on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Submitted(StrEnum):
    """The outcome of a submission. Only the kinds described as "Not executed" are safe to send again."""

    ACCEPTED = "accepted"
    """Executed: a task id came back."""
    REFUSED = "refused"
    """Not executed and never will be: a bad parameter (400), a body too large (413)."""
    UNREACHABLE = "unreachable"
    """Not executed: the request never left (DNS, connect, TLS handshake)."""
    RATE_LIMITED = "rate limited"
    """Not executed: 429."""
    UNAVAILABLE = "unavailable"
    """Not executed: the service says so itself (503 `idempotency_unavailable`)."""
    UNAUTHORIZED = "unauthorized"
    """Not executed: 401 or 403; it may be the key, or this one request."""
    BLOCKED = "blocked"
    """Not executed: a firewall or a gateway in front of the service turned this one request away."""
    UNPAID = "unpaid"
    """Not executed: 402, or a message to that effect: the balance is too low."""
    NO_MODEL = "no model"
    """Not executed: a gateway has no upstream for the model, or none for this key."""
    IN_PROGRESS = "in progress"
    """The same key is in progress (409 `idempotency_in_progress`): ask again later with the same key."""
    INDETERMINATE = "indeterminate"
    """The service cannot tell (409), or says that the key had another body: a person has to decide."""
    UNKNOWN = "unknown"
    """Anything else: possibly executed and charged."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer stored for people because it was not fully understood: secrets masked, only its first part."""

    why: str
    """What was not understood; empty if everything was, but the content may still turn out to be wrong."""
    status: int | None
    headers: str
    """A JSON object."""
    body: str
    length: int
    """Length in bytes of the whole body that was read."""


@dataclass(frozen=True, slots=True)
class Submission:
    """The outcome of one POST; `retry_after` in seconds from now, `status` the HTTP status if there was one."""

    kind: Submitted
    task_ids: tuple[str, ...] = ()
    message: str = ""
    code: str = ""
    status: int | None = None
    retry_after: float | None = None
    replayed: bool = False
    kept: Kept | None = None
    """The answer itself, if it was not fully understood or has task ids."""


class Polled(StrEnum):
    """What a poll found."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    NOT_FOUND = "not found"
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate limited"
    NO_ANSWER = "no answer"
    """No usable answer; a GET can simply be repeated."""


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """One delivered image; `expires_at` in unix seconds, None if the service gave none."""

    url: str
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Poll:
    """The outcome of one poll; `cost` in millionths of a USD, `notes` say what could not be used.

    `took` is the duration of an ended task in seconds, if the service reports it.
    """

    kind: Polled
    images: tuple[ImageUrl, ...] = ()
    cost: int | None = None
    message: str = ""
    code: str = ""
    status: int | None = None
    retry_after: float | None = None
    took: float | None = None
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    """Errors that the service returned in place of images."""
    partial: bool = False
    """Whether the service says that it is still working on the task: images may be missing."""
    kept: Kept | None = None
    """The answer itself, if it was not fully understood."""


class Fetched(StrEnum):
    """The outcome of a download."""

    WHOLE = "whole"
    """All announced bytes arrived."""
    GONE = "gone"
    """403, 404 or 410: the link has expired."""
    BROKEN = "broken"
    """Anything else: a truncated body, a wrong status, a wrong type."""
    REFUSED = "refused"
    """The URL must not be requested."""

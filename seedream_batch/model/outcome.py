"""What the service's answers mean to a task, whatever they looked like on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Submitted(StrEnum):
    """What became of a submission. Only the kinds named "not executed" are safe to send again."""

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
    """Not executed: 402, or words to that effect: the balance is too low."""
    NO_MODEL = "no model"
    """Not executed: a gateway says that it has nothing to run the model on, or nothing for this key."""
    IN_PROGRESS = "in progress"
    """The same key is being worked on (409 `idempotency_in_progress`): ask again later with the same."""
    INDETERMINATE = "indeterminate"
    """The service cannot tell (409), or says that the key had another body: a person has to decide."""
    UNKNOWN = "unknown"
    """Anything else: perhaps executed and billed."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was not fully understood, as it is kept for people: secrets masked, and only its first part."""

    why: str
    """What was not understood; empty where everything was, and what it says may still turn out to be wrong."""
    status: int | None
    headers: str
    """A JSON object."""
    body: str
    length: int
    """Bytes of the whole body that were read."""


@dataclass(frozen=True, slots=True)
class Submission:
    """The outcome of one POST; `retry_after` in seconds from now, `status` the HTTP status if one came."""

    kind: Submitted
    task_ids: tuple[str, ...] = ()
    message: str = ""
    code: str = ""
    status: int | None = None
    retry_after: float | None = None
    replayed: bool = False
    kept: Kept | None = None
    """The answer itself, where it was not fully understood, or has task ids."""


class Polled(StrEnum):
    """What a look at a task showed."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    NOT_FOUND = "not found"
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate limited"
    NO_ANSWER = "no answer"
    """Nothing usable came back; for a GET that is simply asked again."""


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """One delivered image; `expires_at` in unix seconds, None when the service gave none."""

    url: str
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Poll:
    """The outcome of one look at a task; `cost` in millionths of a USD, `notes` say what could not be used.

    `took` is how many seconds a task that has ended was at work, where the service says so.
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
    """What the service said in the place of images."""
    partial: bool = False
    """The service says itself that it is still at work on the task: not all images need be there."""
    kept: Kept | None = None
    """The answer itself, where it was not fully understood."""


class Fetched(StrEnum):
    """What became of a download."""

    WHOLE = "whole"
    """Every byte that was announced arrived."""
    GONE = "gone"
    """403, 404 or 410: the link is expired."""
    BROKEN = "broken"
    """Anything else: a cut body, a wrong status, a wrong type."""
    REFUSED = "refused"
    """The URL is one that must not be asked."""

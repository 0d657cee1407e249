"""The errors this package raises on purpose.

Every error a user can cause or encounter is a `SeedreamBatchError`; any other that escapes is a bug.

    SeedreamBatchError
    +-- UsageError            a wrong argument, environment variable or combination of them
    +-- InvalidJob            a job file with problems, all of them reported at once
    +-- ServiceError          the service cannot be used as asked
    |   +-- CredentialsRefused
    |   +-- BalanceTooLow
    |   +-- RequestRefused
    |   +-- NotReached        the request never reached it
    +-- ManifestError         the manifest cannot be used
    |   +-- ManifestLocked    another run holds it
    |   |   +-- Fenced        this worker's lease expired
    |   +-- ManifestBusy      another program writes to it
    |   +-- StaleTransition   a guarded write did not find the state it names
    +-- StorageError          a file or folder cannot be read or written
        +-- ConnectionLost    the database connection was lost; a commit in progress may be durable or not
        +-- Collision         the server aborted a transaction (deadlock, lock timeout); nothing was changed

Only `seedream_batch.cli` knows which exit code belongs to which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seedream_batch.model.document import Problem


class SeedreamBatchError(Exception):
    """Base of all expected errors; `str()` is a sentence for the user."""


class UsageError(SeedreamBatchError):
    """An argument, an environment variable or a combination of them is invalid."""


class InvalidJob(SeedreamBatchError):
    """A job file has problems; `problems` holds all of them, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ServiceError(SeedreamBatchError):
    """The image service cannot be used as asked."""

    status: int | None = None
    """The HTTP status of the answer, if there was one."""


class CredentialsRefused(ServiceError):
    """The service refused the API key (401) or the access (403)."""


class AccessRefused(CredentialsRefused):
    """The service refused the access (403), perhaps only to this endpoint."""


class BalanceTooLow(ServiceError):
    """The account cannot pay (402)."""


class RequestRefused(ServiceError):
    """The service refuses this request (4xx); a retry is of no use."""


class NotReached(ServiceError):
    """The request was not executed: there was no connection to the service, or it redirects elsewhere."""

    def __init__(self, doing: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{doing}: {reason}")


class ManifestError(SeedreamBatchError):
    """The manifest cannot be opened, read or understood."""


class ManifestLocked(ManifestError):
    """Another run holds the manifest; the message names its pid and start time."""


class Fenced(ManifestLocked):
    """This worker's lease expired; other workers have taken over its tasks."""


class ManifestBusy(ManifestError):
    """Another program writes to the manifest, and did not finish in time."""


class StaleTransition(ManifestError):
    """A guarded update did not find the row in the state it names; nothing was changed."""


class StorageError(SeedreamBatchError):
    """A file or folder cannot be read or written; the message says which and why."""


class ConnectionLost(StorageError):
    """The database connection was lost.

    A commit in progress may be durable or not; reconnecting tells which.
    """


class Collision(StorageError):
    """The server aborted a transaction because of a deadlock or a lock timeout; nothing was changed."""


@contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """Raise `StorageError` about a path for each `OSError` in the block."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error

"""The errors this package raises on purpose.

Everything a user can cause or meet is a `SeedreamBatchError`; anything else that escapes is a bug.

    SeedreamBatchError
    +-- UsageError            a wrong argument, environment variable or combination of them
    +-- InvalidJob            a job file with problems, all of them told at once
    +-- ServiceError          the service cannot be used as asked
    |   +-- CredentialsRefused
    |   +-- BalanceTooLow
    |   +-- RequestRefused
    |   +-- NotReached       the request never came to it
    +-- ManifestError         the manifest cannot be used
    |   +-- ManifestLocked    another run holds it
    |   |   +-- Fenced        other workers took over from this one
    |   +-- ManifestBusy      another program writes into it
    |   +-- StaleTransition   a guarded write did not find the state it names
    +-- StorageError          a file or folder cannot be read or written
        +-- ConnectionLost          the server that the manifest is on does not answer
        +-- Collision         two transactions got in each other's way; nothing was changed

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
    """Base of all expected errors; `str()` is a sentence for people."""


class UsageError(SeedreamBatchError):
    """An argument, an environment variable or a combination of them makes no sense."""


class InvalidJob(SeedreamBatchError):
    """A job file has problems; `problems` holds all of them, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ServiceError(SeedreamBatchError):
    """The image service cannot be used as asked."""


class CredentialsRefused(ServiceError):
    """The service refused the API key (401) or the access (403)."""


class BalanceTooLow(ServiceError):
    """The account cannot pay (402)."""


class RequestRefused(ServiceError):
    """The service refuses this very request (4xx); asking again is of no use."""


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
    """The word of this worker does not count any more: it was silent for too long, and others took over its tasks."""


class ManifestBusy(ManifestError):
    """Another program writes into the manifest, and did not end within the time that it was given."""


class StaleTransition(ManifestError):
    """A state write named a state that the row was not in; nothing was changed."""


class StorageError(SeedreamBatchError):
    """A file or folder cannot be read or written; the message says which and why."""


class ConnectionLost(StorageError):
    """The line to the server that the manifest is on is gone, or it does not answer; nothing was changed."""


class Collision(StorageError):
    """The server broke a transaction off: it and another one waited for each other, or it waited for too long."""


@contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """Errors of the system as `StorageError` about a path."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error

"""Opens connections to a manifest, wherever it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seedream_batch.errors import UsageError
from seedream_batch.manifest.db.connection import Connection
from seedream_batch.manifest.db.sqlite import SqliteConnection, check_type, is_blank
from seedream_batch.model.locations import Place, Server


def connect(place: Place, *, read_only: bool = False, shared: bool = False) -> Connection:
    """Connect to a manifest; opened for writing, it is created if necessary.

    `shared` is for a run that works on it together with others, which only a server allows.

    Raises `ManifestError` for something that is not a manifest or has another version, `StorageError`, and `UsageError`
    if a library is missing.
    """
    if isinstance(place, Path):
        return SqliteConnection(place, read_only=read_only)
    with _needing_psycopg():
        from seedream_batch.manifest.db.postgres import PostgresConnection
    return PostgresConnection(place, read_only=read_only, shared=shared)


def exists(place: Place) -> bool:
    """Return whether there is a manifest, which an empty file is not. Raises what `connect` does if unknown."""
    if isinstance(place, Path):
        check_type(place)
        return place.exists() and not is_blank(place)
    with _needing_psycopg():
        from seedream_batch.manifest.db.postgres_session import is_there
    return is_there(place)


def is_held(place: Server) -> bool:
    """Return whether a run holds a manifest on a server right now."""
    with _needing_psycopg():
        from seedream_batch.manifest.db import postgres_session
    return postgres_session.is_held(place)


@contextmanager
def _needing_psycopg() -> Iterator[None]:
    """Wrap imports that need the slow, optional psycopg. Raises `UsageError` if it is missing."""
    try:
        yield
    except ImportError as error:
        raise UsageError(
            "a manifest on PostgreSQL needs psycopg; install it with: pip install 'seedream-batch[postgres]'"
            f" ({str(error).partition(chr(10))[0]})"
        ) from None

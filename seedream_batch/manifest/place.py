"""Connections to a manifest, wherever it is."""

from __future__ import annotations

from pathlib import Path

from seedream_batch.manifest.connection import Connection
from seedream_batch.manifest.sqlite import SqliteConnection
from seedream_batch.model.place import Place


def connect(place: Place, *, read_only: bool = False) -> Connection:
    """A connection to a manifest; opened for writing it is made if need be.

    Raises `ManifestError` for what is no manifest, or one of another version, `StorageError`, and `UsageError` when a
    library is missing.
    """
    if isinstance(place, Path):
        return SqliteConnection(place, read_only=read_only)
    from seedream_batch.manifest.postgres import PostgresConnection  # noqa: PLC0415 - an extra, and slow to import

    return PostgresConnection(place, read_only=read_only)


def exists(place: Place) -> bool:
    """Whether there is a manifest; raises what `connect` does when its server cannot be asked."""
    if isinstance(place, Path):
        return place.exists()
    from seedream_batch.manifest.postgres import is_there  # noqa: PLC0415 - an extra, and slow to import

    return is_there(place)

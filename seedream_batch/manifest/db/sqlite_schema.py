"""The manifest in SQLite: what only SQLite has, and the way to the newest version.

`PRAGMA user_version` holds the version. A migration and its new version are one transaction, so a kill leaves either
the old manifest or the new one.
"""

from __future__ import annotations

import sqlite3

from seedream_batch.errors import ManifestError
from seedream_batch.manifest.db.schema import ANSWERS_AND_CHARGES, FIRST, Dialect

APPLICATION_ID = 0x5EED_BA7C
"""Marks the file as a manifest (`PRAGMA application_id`), so that no other database is taken for one."""

DIALECT: Dialect = {
    "id": "INTEGER PRIMARY KEY",
    "log_id": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "int": "INTEGER",
    "real": "REAL",
    "strict": " STRICT",
    "keyed": " STRICT, WITHOUT ROWID",
    "only": "only",
    "hash": "",
}

_APPEND_ONLY = """\
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'the log of transitions is append-only'); END;
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'the log of transitions is append-only'); END;
"""

MIGRATIONS = (FIRST.format(**DIALECT) + _APPEND_ONLY, ANSWERS_AND_CHARGES.format(**DIALECT))
"""`MIGRATIONS[i]` migrates from version i to i + 1."""


def is_newest(version: int) -> bool:
    """Return whether a database of this version needs no migration."""
    return version == len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Migrate a database of this version to the newest one."""
    if is_newest(version):
        return
    if version == 0:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        # executescript commits first, so the transaction is opened inside the script.
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")


def check_version(connection: sqlite3.Connection, name: str) -> int:
    """Return the version of a database. Raises `ManifestError` if it is not a manifest or too new."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID and (application or version or not _empty(connection)):
        raise ManifestError(f"{name} is an SQLite database, but not a manifest of seedream-batch")
    if version > len(MIGRATIONS):
        raise ManifestError(
            f"{name} was written by a newer seedream-batch (manifest version {version}, this one knows up to"
            f" {len(MIGRATIONS)}); upgrade seedream-batch"
        )
    return version


def _empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0)

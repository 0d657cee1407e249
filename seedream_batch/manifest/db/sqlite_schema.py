"""The tables of the manifest, and their migrations.

`PRAGMA user_version` holds the version. A migration and its new version are one transaction, so a kill leaves either
the old manifest or the new one. Times are unix seconds, money is millionths of a USD. Scripts of released versions are
not edited: facts that came later are listed in `base_store` and `engine.job_identity`, not in the first script.
"""

from __future__ import annotations

import sqlite3

from seedream_batch.errors import ManifestError

APPLICATION_ID = 0x5EED_BA7C
"""Marks the file as a manifest (`PRAGMA application_id`), so that no other database is taken for one."""

_VERSION_1 = """
CREATE TABLE facts (
    name TEXT PRIMARY KEY,      -- manifest_id, job, job_file, service, created_at, task_times
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    started_at REAL NOT NULL,
    ended_at REAL,
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    version TEXT NOT NULL,      -- of seedream-batch
    service TEXT NOT NULL,      -- the origin the run talked to
    outcome TEXT                -- 'finished', or why it stopped
) STRICT;

CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE,
    ordinal INTEGER,            -- place in the job; NULL: the job no longer asks for it
    sample INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('planned', 'submitting', 'accepted', 'succeeded', 'failed', 'lost', 'uncertain')),
    body TEXT NOT NULL,         -- the request; a local reference image stands in it by its hash
    images INTEGER NOT NULL,    -- asked for
    paths TEXT NOT NULL,        -- JSON list, without extensions
    cell TEXT NOT NULL,         -- JSON object of axis values
    model TEXT NOT NULL,
    size TEXT NOT NULL,
    resolution TEXT NOT NULL,
    price INTEGER NOT NULL,     -- estimate for an image
    attempt INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    task_ids TEXT,              -- JSON list: one submission may be answered with several
    submitted_at REAL,
    deadline REAL,
    ended_at REAL,
    cost INTEGER,               -- of the last attempt, as the service said
    code TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    held INTEGER NOT NULL DEFAULT 0,
    updated_at REAL NOT NULL,
    CHECK (state != 'accepted' OR task_ids IS NOT NULL)
) STRICT;
CREATE INDEX tasks_planned ON tasks (ordinal) WHERE state = 'planned' AND ordinal IS NOT NULL;
CREATE INDEX tasks_open ON tasks (state) WHERE state IN ('submitting', 'accepted', 'uncertain');
CREATE INDEX tasks_wrong ON tasks (state) WHERE state IN ('failed', 'lost');

CREATE TABLE attempts (
    key TEXT PRIMARY KEY,       -- the Idempotency-Key
    task INTEGER NOT NULL REFERENCES tasks (id),
    number INTEGER NOT NULL,    -- from 1
    body TEXT,                  -- the exact request sent; NULL: the task's own body
    opened_at REAL NOT NULL,
    task_ids TEXT,
    outcome TEXT NOT NULL DEFAULT 'open',
    reserved_images INTEGER NOT NULL,
    reserved INTEGER NOT NULL,  -- money held until the real cost is known
    images INTEGER NOT NULL DEFAULT 0,
    cost INTEGER NOT NULL DEFAULT 0,
    UNIQUE (task, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX attempts_holding ON attempts (task) WHERE reserved_images > 0;

CREATE TABLE images (
    task INTEGER NOT NULL REFERENCES tasks (id),
    "index" INTEGER NOT NULL,   -- from 1
    state TEXT NOT NULL CHECK (state IN ('announced', 'stored', 'rejected', 'expired', 'missing')),
    url TEXT NOT NULL,
    expires_at REAL,
    path TEXT,                  -- relative to the output folder
    target TEXT,                -- where the file has to move
    via TEXT,                   -- where it is being moved to right now
    bytes INTEGER,
    sha256 TEXT,
    width INTEGER,
    height INTEGER,
    format TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    updated_at REAL NOT NULL,
    PRIMARY KEY (task, "index"),
    CHECK (state != 'stored' OR (path IS NOT NULL AND sha256 IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX images_path ON images (path) WHERE state = 'stored';
CREATE INDEX images_open ON images (expires_at) WHERE state = 'announced';
CREATE INDEX images_wrong ON images (state) WHERE state IN ('rejected', 'expired', 'missing');
CREATE INDEX images_moving ON images (task) WHERE target IS NOT NULL;
CREATE INDEX images_under_way ON images (task) WHERE via IS NOT NULL;

CREATE TABLE uploads (
    sha256 TEXT NOT NULL,
    service TEXT NOT NULL,
    url TEXT NOT NULL,
    expires_at REAL NOT NULL,
    PRIMARY KEY (sha256, service)
) STRICT, WITHOUT ROWID;

CREATE TABLE prices (           -- what an image really cost, the last time the service said
    model TEXT NOT NULL,
    resolution TEXT NOT NULL,
    price INTEGER NOT NULL,
    PRIMARY KEY (model, resolution)
) STRICT, WITHOUT ROWID;

CREATE TABLE totals (           -- the sums over attempts, kept in the same transactions
    only INTEGER PRIMARY KEY CHECK (only = 1),
    reserved_images INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    images INTEGER NOT NULL,
    cost INTEGER NOT NULL
) STRICT;
INSERT INTO totals VALUES (1, 0, 0, 0, 0);

CREATE TABLE events (           -- every transition, append-only
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    run INTEGER,
    task INTEGER NOT NULL,
    image INTEGER,
    old TEXT NOT NULL,
    new TEXT NOT NULL,
    why TEXT NOT NULL
) STRICT;
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'the log of transitions is append-only'); END;
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'the log of transitions is append-only'); END;
"""

_VERSION_2 = """
ALTER TABLE tasks ADD COLUMN warning TEXT NOT NULL DEFAULT '';     -- why the result is not what was requested
ALTER TABLE images ADD COLUMN warning TEXT NOT NULL DEFAULT '';    -- the same for one image

CREATE TABLE answers (          -- responses of the service that were not fully understood; they may hold a task id
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    task INTEGER NOT NULL REFERENCES tasks (id),
    attempt INTEGER NOT NULL,   -- number of the attempt
    kind TEXT NOT NULL,         -- submission, poll
    status INTEGER,             -- HTTP status
    headers TEXT NOT NULL,      -- JSON object
    body TEXT NOT NULL,         -- the first part, secrets masked, bytes that are not UTF-8 escaped
    length INTEGER NOT NULL,    -- bytes of the whole body that were read
    why TEXT NOT NULL           -- what was not understood
) STRICT;
CREATE INDEX answers_task ON answers (task);

CREATE INDEX tasks_lost ON tasks (submitted_at) WHERE state = 'lost';
CREATE INDEX tasks_flagged ON tasks (id) WHERE warning != '';
CREATE INDEX images_flagged ON images (task) WHERE warning != '';
CREATE INDEX images_sha256 ON images (sha256) WHERE state = 'stored';
CREATE INDEX attempts_task_ids ON attempts (task_ids);

-- Files that came back kept their old place though the job had another one by then: as if their path had changed since,
-- the next run aims them anew.
UPDATE tasks SET paths = paths || ' ' WHERE id IN (SELECT task FROM events WHERE old = 'missing' AND new = 'stored');

ALTER TABLE attempts ADD COLUMN kind TEXT NOT NULL DEFAULT '';         -- what requests of the same price have in common
ALTER TABLE attempts ADD COLUMN cost_note TEXT NOT NULL DEFAULT '';    -- where the cost is not simply what was said
CREATE INDEX attempts_noted ON attempts (cost_note) WHERE cost_note != '';

ALTER TABLE tasks ADD COLUMN account INTEGER NOT NULL DEFAULT 1;    -- the number of the one it was last sent with

CREATE TABLE charges (          -- what an image of a kind of request cost, by day; those of the last days are kept
    kind TEXT NOT NULL,
    day INTEGER NOT NULL,       -- unix seconds / 86400
    model TEXT NOT NULL,
    resolution TEXT NOT NULL,
    highest INTEGER NOT NULL,   -- 0: the service named no cost
    seen INTEGER NOT NULL,      -- charges that were counted, up to a limit
    PRIMARY KEY (kind, day)
) STRICT, WITHOUT ROWID;
"""

MIGRATIONS = (_VERSION_1, _VERSION_2)
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
        raise ManifestError(f"{name} is an SQLite database, but no manifest of seedream-batch")
    if version > len(MIGRATIONS):
        raise ManifestError(
            f"{name} was written by a newer seedream-batch (manifest version {version}, this one knows up to"
            f" {len(MIGRATIONS)}); upgrade seedream-batch"
        )
    return version


def _empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0)

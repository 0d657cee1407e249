"""The tables of the manifest and their migrations, for both databases; see `sqlite_schema` and `postgres_schema`.

Each database adds what only it has, and fills in `Dialect`. Times are unix seconds, money is millionths of a USD, JSON
is stored as it was written. Scripts of released versions are not edited, since SQLite keeps their text: facts that came
later are listed in `base_store` and `engine.job_identity`, not in the first script.
"""

from __future__ import annotations

from typing import TypedDict


class Dialect(TypedDict):
    """What the scripts say differently in each database."""

    id: str
    """The type of a key that numbers rows."""
    log_id: str
    """The same where no number is used twice."""
    int: str
    """A 64-bit integer."""
    real: str
    """A 64-bit floating-point number."""
    strict: str
    """What follows the columns of a table."""
    keyed: str
    """What follows the columns of a table that is stored in the order of its key."""
    only: str
    """The name of the column `only`, which is a keyword of some."""
    hash: str
    """The kind of an index that is only asked for equality."""


FIRST = """
CREATE TABLE facts (
    name TEXT PRIMARY KEY,      -- manifest_id, job, job_file, service, created_at, task_times
    value TEXT NOT NULL
){keyed};

CREATE TABLE runs (
    id {id},
    started_at {real} NOT NULL,
    ended_at {real},
    pid {int} NOT NULL,
    host TEXT NOT NULL,
    version TEXT NOT NULL,      -- of seedream-batch
    service TEXT NOT NULL,      -- the origin the run talked to
    outcome TEXT                -- 'finished', or why it stopped
){strict};

CREATE TABLE tasks (
    id {id},
    fingerprint TEXT NOT NULL UNIQUE,
    ordinal {int},            -- place in the job; NULL: the job no longer asks for it
    sample {int} NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('planned', 'submitting', 'accepted', 'succeeded', 'failed', 'lost', 'uncertain')),
    body TEXT NOT NULL,         -- the request; a local reference image stands in it by its hash
    images {int} NOT NULL,    -- asked for
    paths TEXT NOT NULL,        -- JSON list, without extensions
    cell TEXT NOT NULL,         -- JSON object of axis values
    model TEXT NOT NULL,
    size TEXT NOT NULL,
    resolution TEXT NOT NULL,
    price {int} NOT NULL,     -- estimate for an image
    attempt {int} NOT NULL DEFAULT 0,
    failures {int} NOT NULL DEFAULT 0,
    not_before {real} NOT NULL DEFAULT 0,
    task_ids TEXT,              -- JSON list: one submission may be answered with several
    submitted_at {real},
    deadline {real},
    ended_at {real},
    cost {int},               -- of the last attempt, as the service said
    code TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    held {int} NOT NULL DEFAULT 0,
    updated_at {real} NOT NULL,
    CHECK (state != 'accepted' OR task_ids IS NOT NULL)
){strict};
CREATE INDEX tasks_planned ON tasks (ordinal) WHERE state = 'planned' AND ordinal IS NOT NULL;
CREATE INDEX tasks_open ON tasks (state) WHERE state IN ('submitting', 'accepted', 'uncertain');
CREATE INDEX tasks_wrong ON tasks (state) WHERE state IN ('failed', 'lost');

CREATE TABLE attempts (
    key TEXT PRIMARY KEY,       -- the Idempotency-Key
    task {int} NOT NULL REFERENCES tasks (id),
    number {int} NOT NULL,    -- from 1
    body TEXT,                  -- the exact request sent; NULL: the task's own body
    opened_at {real} NOT NULL,
    task_ids TEXT,
    outcome TEXT NOT NULL DEFAULT 'open',
    reserved_images {int} NOT NULL,
    reserved {int} NOT NULL,  -- money held until the real cost is known
    images {int} NOT NULL DEFAULT 0,
    cost {int} NOT NULL DEFAULT 0,
    UNIQUE (task, number)
){keyed};

CREATE INDEX attempts_holding ON attempts (task) WHERE reserved_images > 0;

CREATE TABLE images (
    task {int} NOT NULL REFERENCES tasks (id),
    "index" {int} NOT NULL,   -- from 1
    state TEXT NOT NULL CHECK (state IN ('announced', 'stored', 'rejected', 'expired', 'missing')),
    url TEXT NOT NULL,
    expires_at {real},
    path TEXT,                  -- relative to the output folder
    target TEXT,                -- where the file has to move
    via TEXT,                   -- where it is being moved to right now
    bytes {int},
    sha256 TEXT,
    width {int},
    height {int},
    format TEXT,
    tries {int} NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    updated_at {real} NOT NULL,
    PRIMARY KEY (task, "index"),
    CHECK (state != 'stored' OR (path IS NOT NULL AND sha256 IS NOT NULL))
){keyed};
CREATE UNIQUE INDEX images_path ON images (path) WHERE state = 'stored';
CREATE INDEX images_open ON images (expires_at) WHERE state = 'announced';
CREATE INDEX images_wrong ON images (state) WHERE state IN ('rejected', 'expired', 'missing');
CREATE INDEX images_moving ON images (task) WHERE target IS NOT NULL;
CREATE INDEX images_under_way ON images (task) WHERE via IS NOT NULL;

CREATE TABLE uploads (
    sha256 TEXT NOT NULL,
    service TEXT NOT NULL,
    url TEXT NOT NULL,
    expires_at {real} NOT NULL,
    PRIMARY KEY (sha256, service)
){keyed};

CREATE TABLE prices (           -- what an image really cost, the last time the service said
    model TEXT NOT NULL,
    resolution TEXT NOT NULL,
    price {int} NOT NULL,
    PRIMARY KEY (model, resolution)
){keyed};

CREATE TABLE totals (           -- the sums over attempts, kept in the same transactions
    {only} {int} PRIMARY KEY CHECK ({only} = 1),
    reserved_images {int} NOT NULL,
    reserved {int} NOT NULL,
    images {int} NOT NULL,
    cost {int} NOT NULL
){strict};
INSERT INTO totals VALUES (1, 0, 0, 0, 0);

CREATE TABLE events (           -- every transition, append-only
    id {log_id},
    at {real} NOT NULL,
    run {int},
    task {int} NOT NULL,
    image {int},
    old TEXT NOT NULL,
    new TEXT NOT NULL,
    why TEXT NOT NULL
){strict};
"""

ANSWERS_AND_CHARGES = """
ALTER TABLE tasks ADD COLUMN warning TEXT NOT NULL DEFAULT '';     -- why the result is not what was requested
ALTER TABLE images ADD COLUMN warning TEXT NOT NULL DEFAULT '';    -- the same for one image

CREATE TABLE answers (          -- responses of the service that were not fully understood; they may hold a task id
    id {id},
    at {real} NOT NULL,
    task {int} NOT NULL REFERENCES tasks (id),
    attempt {int} NOT NULL,   -- number of the attempt
    kind TEXT NOT NULL,         -- submission, poll
    status {int},             -- HTTP status
    headers TEXT NOT NULL,      -- JSON object
    body TEXT NOT NULL,         -- the first part, secrets masked, bytes that are not UTF-8 escaped
    length {int} NOT NULL,    -- bytes of the whole body that were read
    why TEXT NOT NULL           -- what was not understood
){strict};
CREATE INDEX answers_task ON answers (task);

CREATE INDEX tasks_lost ON tasks (submitted_at) WHERE state = 'lost';
CREATE INDEX tasks_flagged ON tasks (id) WHERE warning != '';
CREATE INDEX images_flagged ON images (task) WHERE warning != '';
CREATE INDEX images_sha256 ON images (sha256) WHERE state = 'stored';
CREATE INDEX attempts_task_ids ON attempts {hash}(task_ids);

-- Files that came back kept their old place though the job had another one by then: as if their path had changed since,
-- the next run gives them new paths.
UPDATE tasks SET paths = paths || ' ' WHERE id IN (SELECT task FROM events WHERE old = 'missing' AND new = 'stored');

ALTER TABLE attempts ADD COLUMN kind TEXT NOT NULL DEFAULT '';         -- what requests of the same price have in common
ALTER TABLE attempts ADD COLUMN cost_note TEXT NOT NULL DEFAULT '';    -- where the cost is not simply what was said
CREATE INDEX attempts_noted ON attempts (cost_note) WHERE cost_note != '';

ALTER TABLE tasks ADD COLUMN account {int} NOT NULL DEFAULT 1;    -- the number of the one it was last sent with

CREATE TABLE charges (          -- what an image of a kind of request cost, by day; those of the last days are kept
    kind TEXT NOT NULL,
    day {int} NOT NULL,       -- unix seconds / 86400
    model TEXT NOT NULL,
    resolution TEXT NOT NULL,
    highest {int} NOT NULL,   -- 0: the service named no cost
    seen {int} NOT NULL,      -- charges that were counted, up to a limit
    PRIMARY KEY (kind, day)
){keyed};
"""
"""Version 2 on SQLite, version 3 on PostgreSQL: answers that were not understood, warnings, charges, accounts."""

"""Reads records of tasks and images from a manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from seedream_batch.manifest.db.connection import Connection
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskState


def _of(table: str, names: str) -> str:
    return ", ".join(f"{table}.{name}" for name in names.split())


TASK_COLUMNS = _of(
    "tasks",
    "id fingerprint ordinal sample state body images paths cell model size resolution price attempt failures not_before"
    " task_ids submitted_at deadline cost code reason held updated_at warning",
)
IMAGE_COLUMNS = _of(
    "images", 'task "index" state url expires_at path target bytes sha256 width height format tries reason via warning'
)


def read_tasks(connection: Connection, source: str, values: Sequence[object] = ()) -> list[TaskRecord]:
    """Return the tasks of a query, given from its `FROM` on; `tasks` has no other name in it."""
    return [task_record(row) for row in connection.rows(f"SELECT {TASK_COLUMNS} FROM {source}", values)]


def read_images(connection: Connection, source: str, values: Sequence[object] = ()) -> list[ImageRecord]:
    """Return the images of a query, given from its `FROM` on; `images` has no other name in it."""
    return [image_record(row) for row in connection.rows(f"SELECT {IMAGE_COLUMNS} FROM {source}", values)]


def task_record(row: Sequence[object]) -> TaskRecord:
    """Return the record of a row of `TASK_COLUMNS`."""
    values: list[Any] = list(row)
    values[4] = TaskState(values[4])
    values[7] = tuple(json.loads(values[7]))
    values[16] = tuple(json.loads(values[16])) if values[16] else ()
    values[22] = bool(values[22])
    return TaskRecord(*values)


def image_record(row: Sequence[object]) -> ImageRecord:
    """Return the record of a row of `IMAGE_COLUMNS`."""
    values: list[Any] = list(row)
    values[2] = ImageState(values[2])
    return ImageRecord(*values)

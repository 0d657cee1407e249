"""The state of a job, read beside a run that may be going."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seedream_batch.manifest import ManifestReader
from seedream_batch.manifest.reader import Doubt, RunRow
from seedream_batch.model.document import Json
from seedream_batch.model.task import ImageRecord, ImageState, TaskRecord, TaskState, Totals

SHOWN = 20
"""Tasks named in each list; the counts are always whole."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a job at one moment; money in millionths of a USD, times in unix seconds."""

    job: str
    service: str
    folder: Path
    tasks: dict[TaskState, int]
    images: dict[ImageState, int]
    wanted_tasks: int
    wanted_images: int
    dropped: int
    stored_bytes: int
    totals: Totals
    run: RunRow | None
    running: bool
    next_expiry: tuple[float, int] | None
    failed: list[TaskRecord]
    lost: list[TaskRecord]
    uncertain: list[Doubt]
    troubled: list[tuple[ImageRecord, TaskRecord]]


def read_status(manifest: Path, *, running: bool) -> Status:
    """The state of the job with this manifest; `running` says whether a run holds it right now."""
    with ManifestReader(manifest) as reader:
        reader.snapshot()
        tasks, images = reader.wanted()
        return Status(
            job=reader.fact("job"),
            service=reader.fact("service"),
            folder=manifest.parent,
            tasks=reader.counts(),
            images=reader.image_counts(),
            wanted_tasks=tasks,
            wanted_images=images,
            dropped=reader.dropped(),
            stored_bytes=reader.stored_bytes(),
            totals=reader.totals(),
            run=reader.last_run(),
            running=running,
            next_expiry=reader.next_expiry(),
            failed=reader.tasks(TaskState.FAILED, SHOWN),
            lost=reader.tasks(TaskState.LOST, SHOWN),
            uncertain=reader.doubts(SHOWN),
            troubled=reader.troubled_images(SHOWN),
        )


def cells_in_doubt(manifest: Path) -> list[Mapping[str, Json]]:
    """The cells of tasks that are uncertain, or will be: those that the job no longer has included."""
    with ManifestReader(manifest) as reader:
        states = (TaskState.UNCERTAIN, TaskState.SUBMITTING)
        return [json.loads(task.cell) for state in states for task in reader.tasks(state, -1)]


def status_json(status: Status) -> Json:
    """The status for machines; money in USD, times in unix seconds."""
    totals = status.totals
    run = status.run
    return {
        "job": status.job,
        "service": status.service,
        "folder": str(status.folder),
        "tasks": {str(state): status.tasks.get(state, 0) for state in TaskState},
        "images": {
            "asked_for": status.wanted_images,
            **{str(state): status.images.get(state, 0) for state in ImageState},
            "stored_bytes": status.stored_bytes,
        },
        "no_longer_in_the_job": status.dropped,
        "spent_usd": totals.cost / 1_000_000,
        "images_paid": totals.images,
        "reserved_usd": totals.reserved / 1_000_000,
        "running": status.running,
        "last_run": None
        if run is None
        else {
            "pid": run.pid,
            "host": run.host,
            "started_at": run.started_at,
            "ended_at": run.ended_at,
            "outcome": run.outcome,
        },
        "next_expiry": None if status.next_expiry is None else status.next_expiry[0],
        "failed": [_task_json(task) for task in status.failed],
        "lost": [_task_json(task) for task in status.lost],
        "uncertain": [
            {
                **_task_json(doubt.task),
                "key": doubt.key,
                "sent_at": doubt.sent_at,
                "may_have_cost_usd": doubt.reserved / 1_000_000,
            }
            for doubt in status.uncertain
        ],
        "images_in_trouble": [
            {**_task_json(task), "image": image.index, "state": str(image.state), "reason": image.reason}
            for image, task in status.troubled
        ],
    }


def _task_json(task: TaskRecord) -> dict[str, Json]:
    return {
        "fingerprint": task.fingerprint,
        "path": task.paths[0],
        "cell": json.loads(task.cell),
        "sample": task.sample,
        "prompt": json.loads(task.body).get("prompt"),
        "task_ids": list(task.task_ids),
        "code": task.code,
        "reason": task.reason,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(task.updated_at)),
    }

"""Carrying out what a person decided about failed, lost and uncertain tasks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from seedream_batch.errors import UsageError
from seedream_batch.manifest import Manifest
from seedream_batch.manifest.lock import MANIFEST, run_lock
from seedream_batch.manifest.rescue import RescueFile
from seedream_batch.model.document import Json
from seedream_batch.model.job import Job
from seedream_batch.model.task import TaskRecord, TaskState

Chooses = Callable[[Mapping[str, Json]], bool]


def retry_tasks(job: Job, chooses: Chooses) -> list[TaskRecord]:
    """Plans the chosen failed and lost tasks of the job again; which they were."""
    with _open(job) as manifest:
        chosen = _of_job(_chosen(manifest, (TaskState.FAILED, TaskState.LOST), chooses))
        manifest.retry(chosen, time.time())
    return chosen


def forget_tasks(job: Job, chooses: Chooses) -> list[TaskRecord]:
    """Plans the chosen uncertain tasks again under new keys, which may pay for them twice; which they were."""
    with _open(job) as manifest:
        chosen = _of_job(_chosen(manifest, (TaskState.UNCERTAIN,), chooses))
        manifest.forget(chosen, time.time())
    return chosen


def give_up_tasks(job: Job, chooses: Chooses) -> list[TaskRecord]:
    """Counts the chosen uncertain tasks as failed; which they were."""
    with _open(job) as manifest:
        chosen = _chosen(manifest, (TaskState.UNCERTAIN,), chooses)
        manifest.give_up(chosen, time.time())
    return chosen


def let_resend_tasks(job: Job, chooses: Chooses) -> list[TaskRecord]:
    """Lets the chosen uncertain tasks be sent again under their keys; which they are."""
    with _open(job) as manifest:
        chosen = _chosen(manifest, (TaskState.UNCERTAIN,), chooses)
        manifest.let_resend(chosen, time.time())
    return chosen


def identify_task(job: Job, chooses: Chooses, task_id: str) -> TaskRecord:
    """The one chosen uncertain task gets the task id that the service knows it by. Raises `UsageError`."""
    with _open(job) as manifest:
        chosen = _chosen(manifest, (TaskState.UNCERTAIN,), chooses)
        if len(chosen) != 1:
            names = ", ".join(task.paths[0] for task in chosen[:5])
            told = f"{len(chosen)} uncertain tasks are chosen ({names})" if chosen else "no uncertain task is chosen"
            raise UsageError(f"{told}; a task id belongs to one: choose it with --select")
        if not task_id.strip() or manifest.knows_task_id(task_id.strip()):
            raise UsageError(f"the task id {task_id!r} is empty, or belongs to another task of this job")
        now = time.time()
        deadline = now + job.run.task_timeout
        return manifest.accepted(chosen[0], [task_id.strip()], deadline=deadline, why="identified", now=now)


@contextmanager
def _open(job: Job) -> Iterator[Manifest]:
    with run_lock(job.output_dir):
        manifest = Manifest(job.output_dir / MANIFEST)
        try:
            # What a killed run left in the middle of a submission is in doubt, too, unless its id was rescued.
            rescue = RescueFile(job.output_dir)
            rescued = rescue.read()
            if rescued and manifest.take_in(rescued, time.time(), timeout=job.run.task_timeout) == len(rescued):
                rescue.drop()
            manifest.recover(time.time())
            yield manifest
        finally:
            manifest.close()


def _of_job(tasks: list[TaskRecord]) -> list[TaskRecord]:
    """Those that the job still asks for: nothing else is ever bought."""
    return [task for task in tasks if task.ordinal is not None]


def _chosen(manifest: Manifest, states: Sequence[TaskState], chooses: Chooses) -> list[TaskRecord]:
    return [task for state in states for task in manifest.tasks(state) if chooses(json.loads(task.cell))]

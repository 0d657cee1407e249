"""Carrying out what a person decided about failed, lost and uncertain tasks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from seedream_batch.client.wire import possible_ids
from seedream_batch.engine.manifest_checks import opened
from seedream_batch.errors import UsageError
from seedream_batch.manifest import Manifest, ManifestReader
from seedream_batch.manifest.db.connection import UNLIMITED
from seedream_batch.model.document import Json
from seedream_batch.model.job import Job
from seedream_batch.model.outcome import Polled
from seedream_batch.model.task import TaskRecord, TaskState, may_be_known

Chooses = Callable[[Mapping[str, Json]], bool]


@dataclass(frozen=True, slots=True)
class Retried:
    """Tasks that were planned again, their estimated cost (millionths of a USD), and tasks that were left alone."""

    tasks: list[TaskRecord]
    cost: int
    left: list[TaskRecord]
    """Lost tasks that a poll may still find: they are not bought again before one was answered."""

    @property
    def images(self) -> int:
        """Images that are to be paid for."""
        return sum(task.images for task in self.tasks)


def lost_tasks(job: Job, chooses: Chooses) -> int:
    """How many of the chosen tasks of the job are lost, and may be found again by a poll."""
    now = time.time()
    with ManifestReader(job.manifest) as reader:
        lost = _fitting(reader.tasks(TaskState.LOST, UNLIMITED), chooses)
    return sum(may_be_known(task, now) for task in lost)


def retry_tasks(job: Job, chooses: Chooses, polled: Mapping[int, Polled] | None) -> Retried:
    """Plans the chosen failed and lost tasks of the job again.

    A lost task that the service may know is planned only if its last poll, in `polled` by its number, said that there
    is nothing to be had; with None, all are.
    """
    now = time.time()
    with opened(job) as manifest:
        chosen = _of_job(_chosen(manifest, (TaskState.FAILED, TaskState.LOST), chooses))
        left = [
            task
            for task in chosen
            if polled is not None
            and task.state is TaskState.LOST
            and may_be_known(task, now)
            and polled.get(task.id) not in NO_MORE
        ]
        kept = {task.id for task in left}
        chosen = [task for task in chosen if task.id not in kept]
        manifest.retry(chosen, now)
    return Retried(chosen, estimate(job, chosen), left)


def estimate(job: Job, tasks: Sequence[TaskRecord]) -> int:
    """Return what these tasks will cost by the prices charged last, in millionths of a USD."""
    with ManifestReader(job.manifest) as reader:
        prices = reader.prices()
    return sum(task.images * prices.get((task.model, task.resolution), task.price) for task in tasks)


NO_MORE = {Polled.NOT_FOUND, Polled.COMPLETED, Polled.FAILED}
"""Answers to the last poll of a task that is still lost, or flagged, after it: there are no more images to be had."""


def lose_tasks(job: Job, chooses: Chooses) -> list[TaskRecord]:
    """Counts the chosen accepted tasks as lost, though a run does not dare to; which they were."""
    with opened(job) as manifest:
        chosen = _chosen(manifest, (TaskState.ACCEPTED,), chooses)
        for task in chosen:
            manifest.lost(task, why="given up by a person", now=time.time())
    return chosen


def remake(job: Job, chooses: Chooses) -> tuple[list[TaskRecord], int]:
    """Plans the chosen tasks of the job again whose images are not there, and which no link gives.

    Which they were, and how many more miss an image that a link may still give, which is free.
    """
    with opened(job) as manifest:
        chosen = _fitting(manifest.to_remake(), chooses)
        manifest.remake(chosen, time.time())
        return chosen, len(_fitting(manifest.not_asked(), chooses))


def accept_results(job: Job, chooses: Chooses) -> list[TaskRecord]:
    """Takes the results of the chosen tasks as they are, though they are not what was requested; which they were."""
    with opened(job) as manifest:
        with ManifestReader(job.manifest) as reader:
            chosen = _fitting([one.task for one in reader.flagged(UNLIMITED)], chooses)
        manifest.accept(chosen, time.time())
    return chosen


def forget_tasks(job: Job, chooses: Chooses) -> list[TaskRecord]:
    """Plans the chosen uncertain tasks again under new keys, which may pay for them twice; which they were."""
    with opened(job) as manifest:
        chosen = _of_job(_chosen(manifest, (TaskState.UNCERTAIN,), chooses))
        manifest.forget(chosen, time.time())
    return chosen


def give_up_tasks(job: Job, chooses: Chooses) -> list[TaskRecord]:
    """Counts the chosen uncertain tasks as failed; which they were."""
    with opened(job) as manifest:
        chosen = _chosen(manifest, (TaskState.UNCERTAIN,), chooses)
        manifest.give_up(chosen, time.time())
    return chosen


def let_resend_tasks(job: Job, chooses: Chooses) -> list[TaskRecord]:
    """Lets the chosen uncertain tasks be sent again under their keys; which they are."""
    with opened(job) as manifest:
        chosen = _chosen(manifest, (TaskState.UNCERTAIN,), chooses)
        manifest.let_resend(chosen, time.time())
    return chosen


def identify_task(job: Job, chooses: Chooses, task_id: str) -> TaskRecord:
    """The one chosen uncertain task gets the task id that the service knows it by. Raises `UsageError`.

    Of several it is the one that got an answer with this id in it.
    """
    with opened(job) as manifest:
        chosen = _chosen(manifest, (TaskState.UNCERTAIN,), chooses)
        if len(chosen) > 1:
            # Whichever of them got an answer that has this id in it.
            named = [task for task in chosen if _is_named(manifest, task, task_id.strip())]
            chosen = named if len(named) == 1 else chosen
        if len(chosen) != 1:
            names = ", ".join(task.paths[0] for task in chosen[:5])
            told = f"{len(chosen)} uncertain tasks are chosen ({names})" if chosen else "no uncertain task is chosen"
            raise UsageError(f"{told}; a task id belongs to one: choose it with --select")
        if not task_id.strip() or manifest.knows_task_id(task_id.strip()):
            raise UsageError(f"the task id {task_id!r} is empty, or belongs to another task of this job")
        now = time.time()
        deadline = now + job.run.task_timeout
        return manifest.accepted(chosen[0], [task_id.strip()], deadline=deadline, why="identified", now=now)


def _is_named(manifest: Manifest, task: TaskRecord, task_id: str) -> bool:
    """Whether a kept answer to the task has this id in it."""
    return any(task_id in possible_ids(answer.kept) for answer in manifest.answers(task.id))


def _of_job(tasks: list[TaskRecord]) -> list[TaskRecord]:
    """Those that the job still asks for: nothing else is ever bought."""
    return [task for task in tasks if task.ordinal is not None]


def _chosen(manifest: Manifest, states: Sequence[TaskState], chooses: Chooses) -> list[TaskRecord]:
    return _fitting([task for state in states for task in manifest.tasks(state)], chooses)


def _fitting(tasks: list[TaskRecord], chooses: Chooses) -> list[TaskRecord]:
    return [task for task in tasks if chooses(json.loads(task.cell))]
